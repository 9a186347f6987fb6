from __future__ import annotations

from pathlib import Path

from mixdpo_ray.search.study import forgive, release_stale
from tests.search.test_study import opened, running, states


def test_a_persons_interruptions_do_not_count_as_deaths(tmp_path: Path) -> None:
    """With max_failures 1 a second death would be the end; after five interruptions the trial still goes on."""
    running(opened(tmp_path))
    for number in range(5):
        forgive(opened(tmp_path))
        study = opened(tmp_path)
        assert release_stale(study, max_failures=1) == [number]
        assert running(study).user_attrs["continues"] == number
    assert states(study) == ["FAIL"] * 5 + ["RUNNING"]


def test_a_death_after_an_interruption_counts_once(tmp_path: Path) -> None:
    running(opened(tmp_path))
    forgive(opened(tmp_path))
    for _ in range(2):
        study = opened(tmp_path)
        release_stale(study, max_failures=1)
        running(study)
    release_stale(study, max_failures=1)
    assert [trial.user_attrs["reason"] for trial in study.trials][-1] == "its driver stopped 2 times while it ran"
