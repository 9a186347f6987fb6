"""A study of which nothing came does not keep its name from the search that was corrected."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.cluster.run_record import differences
from mixdpo_ray.search.study import claim_study, fail, queue, report, was_in_vain
from tests.search.test_study import opened


@pytest.mark.parametrize(("value", "in_vain"), [(None, True), (0.5, False)])
def test_a_study_whose_trials_all_failed_before_a_score_is_no_loss(
    tmp_path: Path, value: float | None, in_vain: bool
) -> None:
    study = opened(tmp_path)
    claim_study(study, {"beta": 1e300}, differences)
    queue(study, [{"x": 0.5}])
    assert was_in_vain(study, {"beta": 0.1}), "nothing has run yet"
    trial = study.ask()
    if value is not None:
        report(trial, 1, value)
    fail(study, trial, "the loss is not finite")
    assert was_in_vain(study, {"beta": 0.1}) == in_vain
    assert not was_in_vain(study, {"beta": 1e300})
