"""Each trial ends once, as what it was: COMPLETE, PRUNED or FAIL. Driven as Ray Tune does it, without Ray."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial
from ray.tune.experiment import Trial

from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.search.optuna_search import RungEnded, StopAfterRung, StudySearch, TrialBegan, TrialEnded
from mixdpo_ray.search.space import Space
from mixdpo_ray.search.study import queue, release_stale, still_wanted
from mixdpo_ray.search.trial import rung_recipe
from mixdpo_ray.search.trial_judge import JudgeStoppedError
from mixdpo_ray.search.trials import rows
from tests.search.driven_study import ACCURACY, DRIFT, DrivenStudy
from tests.search.recipes import make_recipe

BETA = "objective.beta"
SPACE = {BETA: {"loguniform": [0.005, 0.5]}}


def driven(folder: Path, **tune: Any) -> DrivenStudy:
    return DrivenStudy(make_recipe({"space": SPACE, **tune}), folder)


def states(study: DrivenStudy) -> list[str]:
    return [row.state for row in rows(study.study)]


def test_a_trial_that_reaches_the_last_rung_is_complete_with_the_score_of_that_rung(tmp_path: Path) -> None:
    study = driven(tmp_path)
    number, settings = study.start()
    assert [study.report(number, budget, {ACCURACY: 0.5 + budget / 32}) for budget in (1, 3, 9)] == [False] * 3
    row = study.end(number)
    assert (row.state, row.values, row.settings) == ("COMPLETE", (0.5 + 9 / 32,), settings)
    assert row.rungs == {1: 0.53125, 3: 0.59375, 9: 0.78125}
    assert row.folder == "trials/0000"


def test_a_trial_that_the_pruner_stops_is_pruned_and_has_no_score(tmp_path: Path) -> None:
    """Of two trials after the first rung only the better one goes on."""
    study = driven(tmp_path)
    study.train(lambda _: 0.75)
    number, _ = study.start()
    assert study.report(number, 1, {ACCURACY: 0.5})
    row = study.end(number)
    assert (row.state, row.values, row.rungs) == ("PRUNED", (), {1: 0.5})


def test_a_trial_whose_judge_stopped_has_not_ended_and_the_search_stops(tmp_path: Path) -> None:
    """It goes on when the command is repeated: an end would have it trained in vain."""
    study = driven(tmp_path)
    number, _ = study.start()
    study.search.on_trial_complete(study.ids[number], {"stopped": "nobody answers", "done": True})
    assert states(study) == ["INTERRUPTED"]
    with pytest.raises(JudgeStoppedError, match="nobody answers"):
        StopAfterRung(study.search, lambda: None).choose_trial_to_run(None)


def test_after_the_last_rung_nobody_is_stopped(tmp_path: Path) -> None:
    """It has been paid for: a late, bad end is still a score."""
    study = driven(tmp_path)
    study.train(lambda _: 0.75)
    number, _ = study.start()
    assert not study.report(number, 1, {ACCURACY: 0.9})
    assert not study.report(number, 3, {ACCURACY: 0.9})
    assert not study.report(number, 9, {ACCURACY: 0.1})
    assert study.end(number).values == (0.1,)


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({ACCURACY: math.nan}, f"{ACCURACY} is not finite"),
        ({ACCURACY: -math.inf}, f"{ACCURACY} is not finite"),
        ({"eval_loss": 0.5}, f"{ACCURACY} is missing"),
    ],
    ids=str,
)
def test_a_score_that_is_missing_or_not_finite_fails_and_the_study_goes_on(
    tmp_path: Path, metrics: dict[str, float], reason: str
) -> None:
    study = driven(tmp_path)
    number, _ = study.start()
    assert [study.report(number, budget, metrics) for budget in study.budgets] == [False] * 3
    row = study.end(number)
    assert (row.state, row.values, row.reason, row.rungs) == ("FAIL", (), reason, {})
    assert study.train(lambda _: 0.75).state == "COMPLETE"


def test_what_an_earlier_version_queued_again_goes_on_under_the_first_number(tmp_path: Path) -> None:
    """It told trial 0 FAIL and queued trial 1, which continues it in its folder."""
    study = driven(tmp_path)
    study.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"folder": "trials/0000"}))
    study.study.enqueue_trial({BETA: 0.25}, user_attrs={"continues": 0, "folder": "trials/0000"})
    number, settings = study.start()
    assert (number, settings) == (0, {BETA: 0.25})
    for budget in study.budgets:
        study.report(number, budget, {ACCURACY: 0.5})
    row = study.end(number)
    assert (row.number, row.state, row.folder, row.continued) == (0, "COMPLETE", "trials/0000", 1)
    assert {event.job for event in study.events} == {0}


def test_a_trial_that_says_why_it_cannot_succeed_fails_with_that_reason(tmp_path: Path) -> None:
    study = driven(tmp_path)
    number, _ = study.start()
    study.report(number, 1, {ACCURACY: 0.9})
    row = study.refuse(number, "the loss of step 17 is not finite")
    assert (row.state, row.values, row.reason) == ("FAIL", (), "the loss of step 17 is not finite")


def test_a_trial_that_raised_fails_with_the_note_that_it_left(tmp_path: Path) -> None:
    study = driven(tmp_path)
    number, _ = study.start()
    RunRecord(f"{tmp_path}/trials/0000").write_failure("ValueError: a bug")
    assert study.crash(number).reason == "ValueError: a bug"


def test_a_trial_that_was_killed_fails_without_a_note(tmp_path: Path) -> None:
    study = driven(tmp_path)
    assert study.crash(study.start()[0]).reason == "its process died without a word: killed, or out of memory"


def test_the_note_of_a_driver_before_is_no_reason_of_this_one(tmp_path: Path) -> None:
    before = driven(tmp_path)
    before.start()
    RunRecord(f"{tmp_path}/trials/0000").write_failure("ValueError: of the first driver")
    study = driven(tmp_path)
    release_stale(study.study, max_failures=2)
    number, _ = study.start()
    assert study.row(number).folder == "trials/0000"
    assert study.crash(number).reason.startswith("its process died without a word")


def test_neither_failed_nor_stopped_nor_unguarded_trials_are_ever_the_best(tmp_path: Path) -> None:
    """Their scores are the highest ones of the study."""
    study = driven(tmp_path, guard="chosen_drift >= -20")
    good = study.train(lambda _: 0.5, drift=-20)
    assert study.train(lambda _: 0.99, drift=-21).state == "COMPLETE"
    for ending in ("stopped", "refused", "crashed", "nan"):
        number, _ = study.start()
        study.report(number, 1, {ACCURACY: 0.98, DRIFT: 0})
        if ending == "stopped":
            study.end(number)
        elif ending == "refused":
            study.refuse(number, "it diverged")
        elif ending == "crashed":
            study.crash(number)
        else:
            study.report(number, 9, {ACCURACY: math.nan, DRIFT: 0})
            study.end(number)
    assert states(study) == ["COMPLETE", "COMPLETE", "PRUNED", "FAIL", "FAIL", "FAIL"]
    assert study.best is not None
    assert study.best.number == good.number


def test_a_guard_is_judged_by_the_last_rung(tmp_path: Path) -> None:
    study = driven(tmp_path, guard="chosen_drift >= -20")
    number, _ = study.start()
    for budget, drift in ((1, -90), (3, -30), (9, -10)):
        study.report(number, budget, {ACCURACY: 0.5, DRIFT: drift})
    assert study.end(number).guarded
    assert study.study.trials[number].constraints == {"guard": -10}


def test_a_guard_whose_measure_is_missing_does_not_hold(tmp_path: Path) -> None:
    study = driven(tmp_path, guard="chosen_drift >= -20")
    number, _ = study.start()
    for budget in study.budgets:
        study.report(number, budget, {ACCURACY: 0.5})
    assert (study.end(number).state, study.best) == ("COMPLETE", None)


def test_a_trial_that_is_started_again_reports_its_rungs_again_without_harm(tmp_path: Path) -> None:
    """Its worker died in the third rung; the finished ones are read from their folders, and cost nothing twice."""
    study = driven(tmp_path)
    number, _ = study.start()
    for budget in (1, 3, 1, 3, 9):
        assert not study.report(number, budget, {ACCURACY: 0.5})
    row = study.end(number)
    assert (row.state, row.rungs) == ("COMPLETE", {1: 0.5, 3: 0.5, 9: 0.5})
    assert (row.pairs, row.seconds) == (10 + 30 + 90, 2.0 + 6.0 + 18.0)


def test_a_trial_ends_once_though_tune_may_say_it_twice(tmp_path: Path) -> None:
    study = driven(tmp_path)
    row = study.train(lambda _: 0.75)
    assert study.end(row.number) == row
    assert study.crash(row.number) == row
    assert [event for event in study.events if isinstance(event, TrialEnded)] == [TrialEnded(row, job=row.number)]


def test_a_trial_that_was_cut_goes_on_with_its_settings_and_counts_once(tmp_path: Path) -> None:
    before = driven(tmp_path)
    before.train(lambda _: 0.5)
    number, settings = before.start()
    before.report(number, 1, {ACCURACY: 0.75})
    study = driven(tmp_path)
    assert release_stale(study.study, max_failures=2) == [1]
    row = study.train(lambda _: 0.75)
    assert (row.number, row.continued, row.folder) == (1, 1, "trials/0001")
    assert row.settings == settings
    assert states(study) == ["COMPLETE", "COMPLETE"]
    assert still_wanted(study.study, 5) == 3


def test_a_grid_is_tried_from_the_first_point_to_the_last(tmp_path: Path) -> None:
    space = {BETA: {"choice": [0.05, 0.1]}, "train.num_train_epochs": {"integer": [1, 2]}}
    tune = {"space": space, "sampler": "grid", "early_stopping": {"pruner": "none"}}
    points = Space.of(make_recipe(tune)).points()
    study = DrivenStudy(make_recipe(tune), tmp_path)
    queue(study.study, points)
    for _ in points:
        study.train(lambda _: 0.5)
    assert [dict(row.settings) for row in rows(study.study)] == points
    assert len(points) == still_wanted(study.study, 8) == 4


def test_two_metrics_are_compared_at_the_end_alone(tmp_path: Path) -> None:
    study = driven(tmp_path, metric=["accuracy", "chosen_drift"], early_stopping={"pruner": "none"})
    row = study.train(lambda _: 0.75, drift=-3)
    assert (row.state, row.values, row.rungs) == ("COMPLETE", (0.75, -3.0), {})
    number, _ = study.start()
    study.report(number, 1, {ACCURACY: 0.75, DRIFT: math.nan})
    assert (study.end(number).state, study.row(number).reason) == ("FAIL", f"{DRIFT} is not finite")


def test_whoever_watches_is_told_of_start_rungs_and_end(tmp_path: Path) -> None:
    study = driven(tmp_path)
    row = study.train(lambda _: 0.75)
    rungs = [RungEnded(budget, 0.75, job=0) for budget in (1, 3, 9)]
    assert study.events == [TrialBegan(row.settings, job=0), *rungs, TrialEnded(row, job=0)]


def test_the_scheduler_stops_whom_the_study_gives_up(tmp_path: Path) -> None:
    study = driven(tmp_path)
    study.train(lambda _: 0.75)
    scheduler, decisions = StopAfterRung(study.search, lambda: None), []
    for score in (0.875, 0.5):
        number, _ = study.start()
        trial = Trial("run_trial", stub=True, trial_id=study.ids[number])
        decisions.append(scheduler.on_trial_result(None, trial, study.result(number, 1, {ACCURACY: score})))
    assert decisions == ["CONTINUE", "STOP"]


def test_tune_may_write_the_searcher_down_though_nobody_reads_it(tmp_path: Path) -> None:
    study = driven(tmp_path)
    study.search.save(str(tmp_path / "searcher"))
    assert (tmp_path / "searcher").exists()
    assert isinstance(pickle.loads(pickle.dumps(study.search)), StudySearch)


@pytest.mark.parametrize(("budget", "thin"), [(1, 9), (3, 3), (9, 1)])
def test_a_rung_trains_the_trials_settings_on_a_thinned_curriculum(budget: int, thin: int) -> None:
    recipe = rung_recipe(make_recipe(), {BETA: 0.25}, budget)
    assert (recipe.objective.model_dump(), recipe.curriculum.thin) == ({"beta": 0.25}, thin)
