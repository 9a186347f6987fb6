"""What a person or a death interrupts goes on as the trial that it was, also where an earlier version left two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.search.output import StudyOutput
from mixdpo_ray.search.space import Space
from mixdpo_ray.search.study import forgive, release_stale, still_wanted
from mixdpo_ray.search.trials import rows
from tests.search.small_study import OWN, Maker
from tests.search.test_output import RECIPE
from tests.search.test_study import opened, running, states
from tests.search.written_page import written


def test_a_persons_interruptions_do_not_count_as_deaths(tmp_path: Path) -> None:
    """With max_failures 1 a second death would be the end; after five interruptions the trial still goes on."""
    running(opened(tmp_path))
    for number in range(5):
        forgive(opened(tmp_path))
        study = opened(tmp_path)
        assert release_stale(study, max_failures=1) == [0]
        assert running(study).user_attrs["continued"] == number + 1
    assert states(study) == ["RUNNING"]


def test_a_death_after_an_interruption_counts_once(tmp_path: Path) -> None:
    running(opened(tmp_path))
    forgive(opened(tmp_path))
    for _ in range(2):
        study = opened(tmp_path)
        release_stale(study, max_failures=1)
        running(study)
    release_stale(study, max_failures=1)
    assert [trial.user_attrs["reason"] for trial in study.trials] == ["its driver stopped 2 times while it ran"]


def test_deaths_that_an_earlier_version_told_as_trials_count_once(tmp_path: Path) -> None:
    """Trial 0 died, and so did 1, which continues it: two deaths. The next one is the third, which may be."""
    study = opened(tmp_path)
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": "its driver stopped"}))
    running(study).set_user_attr("continues", 0)
    for _ in range(2):
        release_stale(study, max_failures=3)
        assert states(study) == ["FAIL", "WAITING"]
        running(study)
    release_stale(study, max_failures=3)
    assert study.trials[1].user_attrs["reason"] == "its driver stopped 4 times while it ran"


def test_what_was_cut_is_called_interrupted_until_it_goes_on_and_ends(tmp_path: Path) -> None:
    running(opened(tmp_path))
    forgive(opened(tmp_path))
    study = opened(tmp_path)
    assert [row.state for row in rows(study)] == ["INTERRUPTED"]
    release_stale(study, max_failures=2)
    assert [row.state for row in rows(study)] == ["INTERRUPTED"]
    study.tell(running(study), 0.5)
    assert [(row.number, row.state, row.continued) for row in rows(study)] == [(0, "COMPLETE", 1)]


def of_an_earlier_version() -> optuna.Study:
    """Trial 0 was cut twice: 1 and 2 continue it, and 2 won; 3 is another."""
    study = optuna.create_study(direction="maximize")
    fail: dict[str, Any] = {"reason": "its driver stopped", "folder": "trials/0000", "settings": OWN}
    for continues in (None, 0):
        attributes = fail if continues is None else {**fail, "continues": continues}
        study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=attributes))
    for value, attributes in ((0.75, {"folder": "trials/0000", "continues": 1}), (0.5, {"folder": "trials/0003"})):
        notes = {"settings": OWN, "metrics": {"eval_pairs/margin_1-2": 100}, **attributes}
        study.add_trial(create_trial(value=value, user_attrs=notes))
    return study


def test_trials_that_an_earlier_version_continued_under_new_numbers_are_read_as_one(tmp_path: Path) -> None:
    study = of_an_earlier_version()
    found = [(row.number, row.state, row.continued, row.folder) for row in rows(study)]
    assert found == [(0, "COMPLETE", 2, "trials/0000"), (3, "COMPLETE", 0, "trials/0003")]
    assert still_wanted(study, 6) == 4
    recipe = load_recipe(str(RECIPE), ["tune.metric=accuracy"])
    lines = StudyOutput(recipe, str(tmp_path), Space(()), study, {1: 19}, "", ["tune"]).describe().splitlines()
    assert lines[0].endswith(": 2 trials (2 COMPLETE)")
    assert lines[1].startswith("  best     trial 0: held-out preference accuracy 0.7500 (95 % interval 0.657 to 0.825")


def test_the_page_shows_what_went_on_as_one_trial_and_the_recipes_own_score(tmp_path: Path) -> None:
    page = written(of_an_earlier_version(), Maker.start(tmp_path).facts(best=0), tmp_path)
    words, traces = page.words, [trace for figure in page.figures for trace in figure["data"]]
    assert [0, 3] in [trace["x"] for trace in traces if trace.get("name") == "a trial"]
    assert "· 2 complete" in words
    assert "What failed" not in words
    assert "These are the recipe's own settings: no other trial was better." in words
    assert "winner , the recipe, continued 2 times" in words


def test_the_page_calls_interrupted_what_was_interrupted(tmp_path: Path) -> None:
    maker = Maker.start(tmp_path)
    maker.add(OWN)
    maker.add(maker.draw(), "RUNNING", 1)
    words = written(maker.study, maker.facts(), tmp_path).words
    assert "· 1 complete · 1 interrupted" in words
    assert "What failed" not in words
