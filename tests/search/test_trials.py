"""The trials as a person reads them: which won, which are on the front, and a table that agrees with the storage."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend

from mixdpo_ray.recipe.measure import Measure, read_metrics
from mixdpo_ray.search.study import JOURNAL, release_stale
from mixdpo_ray.search.trials import TrialRow, best, front, row_of, rows, write_trials
from tests.search.driven_study import ACCURACY, DRIFT, DrivenStudy
from tests.search.recipes import make_recipe

UP = (Measure(ACCURACY, "max"),)
TWO = (Measure(ACCURACY, "max"), Measure(DRIFT, "max"))
BETA, RATIO = "objective.beta", "train.schedule.stage2_lr_ratio"


def row(number: int, *values: float, state: str = "COMPLETE", guarded: bool = True) -> TrialRow:
    return TrialRow(number, state, values, {}, {}, {}, guarded, "", 0, "", 0.0, 0, None, None)


def numbers(trials: list[TrialRow]) -> list[int]:
    return [trial.number for trial in trials]


def winner(*trials: TrialRow, metrics: tuple[Measure, ...] = UP) -> int | None:
    found = best(trials, metrics)
    return None if found is None else found.number


def test_the_best_trial_has_the_best_value_in_the_metrics_direction() -> None:
    trials = [row(0, 0.5), row(1, 0.75), row(2, 0.625)]
    assert winner(*trials) == 1
    assert winner(*trials, metrics=(Measure("eval_loss", "min"),)) == 0


def test_of_equals_the_earliest_won() -> None:
    assert winner(row(0, 0.5), row(1, 0.75), row(2, 0.75)) == 1


def test_no_trial_is_best_that_was_not_trained_to_the_end_or_breaks_the_guard() -> None:
    others = [row(0, state="FAIL"), row(1, state="PRUNED"), row(2, state="INTERRUPTED"), row(3, 0.9, guarded=False)]
    assert winner(*others) is None
    assert winner(*others, row(4, 0.1)) == 4
    assert winner() is None


def test_of_two_metrics_the_first_names_the_best() -> None:
    assert winner(row(0, 0.5, -1), row(1, 0.75, -9), metrics=TWO) == 1


def test_the_front_holds_those_that_no_other_beats_without_losing_something() -> None:
    """1 beats 2 in both; 3 is as good as 1 in one and worse in the other; 4 is equal to 1, and neither beats."""
    trials = [row(0, 0.5, -1), row(1, 0.75, -4), row(2, 0.625, -5), row(3, 0.75, -6), row(4, 0.75, -4)]
    assert numbers(front(trials, TWO)) == [0, 1, 4]


def test_the_front_follows_each_metrics_direction() -> None:
    metrics = (Measure(ACCURACY, "max"), Measure("eval_loss", "min"))
    assert numbers(front([row(0, 0.5, 1), row(1, 0.75, 4), row(2, 0.625, 5)], metrics)) == [0, 1]


def test_the_front_holds_no_trial_that_failed_or_breaks_the_guard() -> None:
    trials = [row(0, 0.5, -1), row(1, 0.9, 0.0, guarded=False), row(2, state="FAIL"), row(3, state="PRUNED")]
    assert numbers(front(trials, TWO)) == [0]


def driven(folder: Path) -> DrivenStudy:
    """Complete, stopped, NaN, refused, cut by its driver's death and then complete: 0 to 4. One more waits."""
    space = {BETA: {"loguniform": [0.005, 0.5]}, RATIO: {"uniform": [0.1, 1]}}
    recipe = make_recipe({"space": space, "guard": "chosen_drift >= -20"})
    first = DrivenStudy(recipe, folder)
    first.train(lambda _: 0.75, drift=-25)
    first.train(lambda _: 0.5)
    number, _ = first.start()
    for budget in first.budgets:
        first.report(number, budget, {ACCURACY: math.nan if budget == 9 else 0.875, DRIFT: -1})
    first.end(number)
    first.refuse(first.start()[0], 'a loss of "inf", at step 3;\nnothing was updated')
    first.report(first.start()[0], 1, {ACCURACY: 0.9, DRIFT: -1})
    second = DrivenStudy(recipe, folder)
    release_stale(second.study, max_failures=2)
    second.train(lambda _: 1.0)
    second.study.enqueue_trial({BETA: 0.1})
    return second


def test_a_study_is_read_as_rows_of_what_was_started(tmp_path: Path) -> None:
    study = driven(tmp_path).study
    found = rows(study)
    assert [(one.number, one.state, one.guarded, one.continued) for one in found] == [
        (0, "COMPLETE", False, 0),
        (1, "PRUNED", True, 0),
        (2, "FAIL", True, 0),
        (3, "FAIL", True, 0),
        (4, "COMPLETE", True, 1),
    ]
    assert found[1].rungs == {1: 0.5}
    assert found[0].rungs == {1: 0.75, 3: 0.75, 9: 0.75}
    assert (found[0].pairs, found[0].seconds, found[1].pairs) == (10 + 30 + 90, 2.0 + 6.0 + 18.0, 10)
    assert found[4].folder == "trials/0004"
    assert found[4].rungs == {1: 0.9, 3: 1.0, 9: 1.0}
    assert len(study.trials) == 6


def stored(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """Read by Optuna alone."""
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    trials: list[optuna.trial.FrozenTrial] = optuna.load_study(study_name="run", storage=storage).get_trials()
    return trials


def table(study: optuna.Study) -> list[dict[str, str]]:
    text = write_trials(rows(study), read_metrics("accuracy"), (BETA, RATIO), (1, 3, 9))
    return list(csv.DictReader(io.StringIO(text)))


def number(text: str) -> float | None:
    return float(text) if text else None


def test_trials_csv_agrees_with_the_storage_row_by_row(tmp_path: Path) -> None:
    lines = table(driven(tmp_path).study)
    trials = [trial for trial in stored(tmp_path) if trial.state.name != "WAITING"]
    assert len(lines) == len(trials) == 5
    for line, trial in zip(lines, trials, strict=True):
        assert (line["number"], line["state"]) == (str(trial.number), trial.state.name)
        assert number(line[ACCURACY]) == (trial.value if trial.state.name == "COMPLETE" else None)
        rungs = {budget: number(line[f"rung {budget}"]) for budget in (1, 3, 9)}
        assert {budget: value for budget, value in rungs.items() if value is not None} == trial.intermediate_values
        assert {name: number(line[name]) for name in (BETA, RATIO)} == trial.params
        assert line["reason"] == trial.user_attrs.get("reason", "")
        assert line["continued"] == str(trial.user_attrs.get("continued", 0))
        assert line["started"] == trial.datetime_start.isoformat(timespec="seconds")
        assert line["ended"] == trial.datetime_complete.isoformat(timespec="seconds")


def test_a_reason_of_several_lines_with_quotes_stays_one_cell(tmp_path: Path) -> None:
    assert table(driven(tmp_path).study)[3]["reason"] == 'a loss of "inf", at step 3;\nnothing was updated'


def test_settings_that_a_trial_does_not_have_are_empty_cells(tmp_path: Path) -> None:
    """DPO has no gamma_beta_ratio. Both objectives' beta is one column, for it is one setting."""
    space: dict[str, Any] = {"objective.name": {"choice": ["dpo", "simpo"]}}
    study = DrivenStudy(make_recipe({"space": space, "early_stopping": {"pruner": "none"}}), tmp_path)
    for _ in range(8):
        study.train(lambda _: 0.5)
    columns = ("objective.name", BETA, "objective.gamma_beta_ratio")
    lines = list(csv.DictReader(io.StringIO(write_trials(rows(study.study), UP, columns, (1,)))))
    assert {line["objective.name"] for line in lines} == {"dpo", "simpo"}
    for line in lines:
        assert line[BETA]
        assert bool(line["objective.gamma_beta_ratio"]) == (line["objective.name"] == "simpo")


def test_two_metrics_are_two_columns_in_their_order() -> None:
    text = write_trials([row(0, 0.5, -1.5), row(1, state="FAIL")], TWO, (), ())
    head, first, second = (line.split(",") for line in text.splitlines())
    assert head[:4] == ["number", "state", ACCURACY, DRIFT]
    assert (first[:4], second[:4]) == (["0", "COMPLETE", "0.5", "-1.5"], ["1", "FAIL", "", ""])


def test_what_the_rows_say_survives_the_journal(tmp_path: Path) -> None:
    """Also a metric that was not a number."""
    before = rows(driven(tmp_path).study)
    after = [row_of(trial) for trial in stored(tmp_path)][:5]
    assert json.dumps([dict(one.metrics) for one in after]) == json.dumps([dict(one.metrics) for one in before])
    assert math.isnan(after[2].metrics[ACCURACY])
    assert [one.settings for one in after] == [one.settings for one in before]
