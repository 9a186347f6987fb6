"""A study's storage: what a killed driver leaves is mended, its trials end once, and are queued again."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mixdpo_ray.cluster.run_record import differences
from mixdpo_ray.errors import RunConflictError, StorageError
from mixdpo_ray.recipe.measure import read_metrics
from mixdpo_ray.search.samplers import Draw, make_sampler
from mixdpo_ray.search.study import (
    JOURNAL,
    claim_study,
    complete,
    fail,
    forget_study,
    open_study,
    prune,
    queue,
    release_stale,
    report,
    still_wanted,
)
from tests.search.recipes import make_recipe

METRICS = read_metrics("accuracy")


def opened(folder: Path, **tune: Any) -> optuna.Study:
    """As a driver does that starts, or starts again."""
    return open_study(make_recipe(tune), str(folder), make_sampler("random", Draw(0, conditional=False)))


def running(study: optuna.Study, name: str = "x") -> optuna.Trial:
    """A trial that has drawn its settings and trains."""
    trial = study.ask()
    trial.suggest_float(name, 0, 1)
    trial.set_user_attr("folder", trial.user_attrs.get("folder") or f"trials/{trial.number:04d}")
    return trial


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_a_study_is_made_once_and_then_continued(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.tell(running(first), 0.5)
    again = opened(tmp_path)
    assert again.study_name == first.study_name == "run"
    assert [trial.value for trial in again.trials] == [0.5]


def test_directions_follow_the_metrics(tmp_path: Path) -> None:
    two = ["eval_loss", "accuracy"]
    study = opened(tmp_path, metric=two, early_stopping={"pruner": "none"})
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("asha", "SuccessiveHalvingPruner"), ("median", "MedianPruner"), ("none", "NopPruner")],
)
def test_early_stopping_is_optunas_own(tmp_path: Path, name: str, kind: str) -> None:
    assert type(opened(tmp_path, early_stopping={"pruner": name}).pruner).__name__ == kind


@pytest.mark.parametrize("half", [b'{"op_code": 5, "work', b"{", b'{"op_code": 5}'])
def test_half_a_line_at_the_journals_end_is_cut_and_the_study_goes_on(tmp_path: Path, half: bytes) -> None:
    study = opened(tmp_path)
    study.tell(running(study), 0.5)
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole + half)
    again = opened(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes().startswith(whole)
    assert half not in (tmp_path / JOURNAL).read_bytes()[len(whole) :].splitlines()
    again.tell(running(again), 0.75)
    assert [trial.value for trial in opened(tmp_path).trials] == [0.5, 0.75]


def test_a_journal_that_holds_half_a_line_alone_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b'{"op_code": 0, "worker_id": "4')
    study = opened(tmp_path)
    study.tell(running(study), 0.5)
    assert states(opened(tmp_path)) == ["COMPLETE"]


def test_the_lock_of_a_dead_driver_delays_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna itself would sleep again and again, for 30 seconds, before it takes a lock away."""
    study = opened(tmp_path)
    study.tell(running(study), 0.5)
    (tmp_path / f"{JOURNAL}.lock").symlink_to(tmp_path / JOURNAL)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail(f"somebody sleeps for {seconds} s"))
    again = opened(tmp_path)
    again.tell(running(again), 0.75)
    assert not (tmp_path / f"{JOURNAL}.lock").is_symlink()


def test_what_a_dead_driver_left_running_goes_on_under_its_number(tmp_path: Path) -> None:
    trial = running(opened(tmp_path))
    study = opened(tmp_path)
    assert release_stale(study, max_failures=2) == [0]
    assert states(study) == ["WAITING"]
    again = running(study)
    assert again.number == 0
    assert again.params == trial.params
    notes = {"folder": "trials/0000", "interrupted": False, "deaths": 1, "continued": 1}
    assert again.user_attrs == notes


def test_a_trial_that_ended_is_left_as_it_is(tmp_path: Path) -> None:
    before = opened(tmp_path)
    complete(before, running(before), METRICS, {"eval_rewards/accuracies": 0.5})
    fail(before, running(before), "it diverged")
    prune(before, running(before))
    study = opened(tmp_path)
    assert release_stale(study, max_failures=2) == []
    assert states(study) == ["COMPLETE", "FAIL", "PRUNED"]


def test_a_trial_and_those_that_continue_it_count_once(tmp_path: Path) -> None:
    """Of 5 wanted one is complete, and one died and waits: 4 are to be started, the waiting one among them."""
    before = opened(tmp_path)
    before.tell(running(before), 0.5)
    running(before)
    study = opened(tmp_path)
    release_stale(study, max_failures=2)
    assert still_wanted(study, 5) == 4
    study.tell(running(study), 0.6)
    assert still_wanted(study, 5) == 3
    assert still_wanted(study, 2) == 0
    assert still_wanted(study, 1) == 0


def test_a_trial_whose_driver_died_more_often_than_allowed_is_given_up(tmp_path: Path) -> None:
    """With max_failures 2 it runs three times; then it has failed, and counts as one trial."""
    running(opened(tmp_path))
    for number in range(3):
        study = opened(tmp_path)
        assert release_stale(study, max_failures=2) == [0]
        if number < 2:
            assert running(study).user_attrs["continued"] == number + 1
    assert states(study) == ["FAIL"]
    assert study.trials[0].user_attrs["reason"] == "its driver stopped 3 times while it ran"
    assert still_wanted(study, 5) == 4


def test_without_restarts_one_death_is_the_end(tmp_path: Path) -> None:
    running(opened(tmp_path))
    study = opened(tmp_path)
    release_stale(study, max_failures=0)
    assert states(study) == ["FAIL"]


def test_what_an_earlier_version_had_queued_again_is_not_tried_twice(tmp_path: Path) -> None:
    """It died after it had queued the trial again and before it had told the old one that it failed."""
    before = opened(tmp_path)
    before.enqueue_trial(running(before).params, user_attrs={"continues": 0, "folder": "trials/0000"})
    study = opened(tmp_path)
    assert release_stale(study, max_failures=2) == [0]
    assert states(study) == ["FAIL", "WAITING"]


def test_a_queued_trial_whose_driver_died_before_it_drew_anything_is_not_lost(tmp_path: Path) -> None:
    before = opened(tmp_path)
    queue(before, [{"x": 0.25, "y": 0.75}])
    before.ask().suggest_float("x", 0, 1)  # and y was never asked for
    study = opened(tmp_path)
    release_stale(study, max_failures=2)
    again = study.ask()
    assert (again.suggest_float("x", 0, 1), again.suggest_float("y", 0, 1)) == (0.25, 0.75)
    study.tell(again, 0.5)
    queue(study, [{"x": 0.25, "y": 0.75}])  # as every start does
    assert states(study) == ["COMPLETE"]


def test_a_driver_that_died_before_the_first_draw_costs_no_trial(tmp_path: Path) -> None:
    opened(tmp_path).ask()
    study = opened(tmp_path)
    release_stale(study, max_failures=2)
    assert still_wanted(study, 5) == 5


def test_points_are_tried_in_order_before_anything_is_drawn_and_queued_once(tmp_path: Path) -> None:
    study = opened(tmp_path)
    points = [{"x": 0.25}, {"x": 0.75}]
    queue(study, points)
    queue(opened(tmp_path), points)
    drawn = [running(study).params["x"] for _ in range(3)]
    assert drawn[:2] == [0.25, 0.75]
    assert len(study.trials) == 3
    queue(study, points)
    assert len(study.trials) == 3


def test_a_trial_with_its_scores_is_complete(tmp_path: Path) -> None:
    study = opened(tmp_path)
    complete(study, running(study), METRICS, {"eval_rewards/accuracies": 0.75, "eval_loss": math.nan})
    assert (states(study), study.trials[0].values) == (["COMPLETE"], [0.75])


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"eval_rewards/accuracies": math.nan}, "eval_rewards/accuracies is not finite"),
        ({"eval_rewards/accuracies": math.inf}, "eval_rewards/accuracies is not finite"),
        ({"eval_loss": 0.5}, "eval_rewards/accuracies is missing"),
        ({}, "eval_rewards/accuracies is missing"),
    ],
    ids=str,
)
def test_a_score_that_is_missing_or_not_finite_is_a_failure(
    tmp_path: Path, found: dict[str, float], reason: str
) -> None:
    study = opened(tmp_path)
    complete(study, running(study), METRICS, found)
    trial = study.trials[0]
    assert (trial.state, trial.values, trial.user_attrs["reason"]) == (TrialState.FAIL, None, reason)


def test_of_two_scores_both_are_needed(tmp_path: Path) -> None:
    study = opened(tmp_path, metric=["accuracy", "chosen_drift"], early_stopping={"pruner": "none"})
    metrics = read_metrics(("accuracy", "chosen_drift"))
    complete(study, running(study), metrics, {"eval_rewards/accuracies": 0.75})
    assert study.trials[0].user_attrs["reason"] == "eval_logps/chosen_drift is missing"


def test_a_rung_reported_twice_keeps_its_first_score(tmp_path: Path) -> None:
    study = opened(tmp_path)
    trial = running(study)
    for budget, value in ((1, 0.5), (3, 0.625), (1, 0.5), (3, 0.75)):
        report(trial, budget, value)
    assert study.trials[0].intermediate_values == {1: 0.5, 3: 0.625}


def test_a_study_belongs_to_one_search(tmp_path: Path) -> None:
    identity = {"objective": {"beta": 0.1}, "tune": {"space": {"objective.beta": {"loguniform": (0.01, 1)}}}}
    claim_study(opened(tmp_path), identity, differences)
    claim_study(opened(tmp_path), identity, differences)
    other = {**identity, "objective": {"beta": 0.2}}
    with pytest.raises(RunConflictError) as caught:
        claim_study(opened(tmp_path), other, differences)
    assert str(caught.value) == (
        "study run searches something else (objective.beta was 0.1, is 0.2): choose another output.name, or "
        "output.fresh=true to delete it and start over"
    )


def test_a_study_that_is_started_over_forgets_everything(tmp_path: Path) -> None:
    folder = tmp_path / "studies" / "run"
    running(opened(folder))
    forget_study(make_recipe(), str(folder))
    assert not folder.exists()
    assert opened(folder).trials == []


def test_a_database_serves_as_well_as_a_file(tmp_path: Path) -> None:
    tune = {"storage": f"sqlite:///{tmp_path}/studies.db"}
    running(opened(tmp_path, **tune))
    study = opened(tmp_path, **tune)
    assert release_stale(study, max_failures=2) == [0]
    study.tell(running(study), math.inf)
    assert states(opened(tmp_path, **tune)) == ["COMPLETE"]
    assert not (tmp_path / JOURNAL).exists()
    forget_study(make_recipe(tune), str(tmp_path / "studies"))
    assert opened(tmp_path, **tune).trials == []


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/a.db", "nosuchdatabase://host/name", "no url"])
def test_a_database_that_cannot_be_used_is_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(StorageError) as caught:
        opened(tmp_path, storage=url)
    message = str(caught.value)
    assert message.startswith(f"tune.storage {url}: ")
    assert message.endswith("; check the URL and the database")
    assert "\n" not in message
