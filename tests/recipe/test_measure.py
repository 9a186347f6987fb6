"""Measures, guards, and which measure cannot compare trials."""

from __future__ import annotations

import math
import re

import pytest

from mixdpo_ray.recipe.measure import Measure, MeasureGuard, read_guard, read_metric, read_metrics, why_unfair
from mixdpo_ray.training.metric_names import HELD_OUT_METRICS, metric_in_words

BETA, NAME, VALUE = "objective.beta", "objective.name", "curriculum.threshold.value"
RATE = "train.optimizer.learning_rate"


@pytest.mark.parametrize(
    ("written", "name", "direction"),
    [
        ("eval_rewards/accuracies", "eval_rewards/accuracies", "max"),
        ("accuracy", "eval_rewards/accuracies", "max"),
        ("chosen_drift", "eval_logps/chosen_drift", "max"),
        ("max chosen_drift", "eval_logps/chosen_drift", "max"),
        ("min chosen_drift", "eval_logps/chosen_drift", "min"),
        ("eval_loss", "eval_loss", "min"),
        ("eval_loss/easy", "eval_loss/easy", "min"),
        ("eval_nll/chosen", "eval_nll/chosen", "min"),
        ("max eval_loss", "eval_loss", "max"),
        ("judge/win_rate", "judge/win_rate", "max"),
        ("judge/quality", "judge/quality", "max"),
    ],
)
def test_a_measure_is_read_with_its_direction(written: str, name: str, direction: str) -> None:
    metric = read_metric(written)
    assert (metric.name, metric.direction) == (name, direction)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("judge/wins", "'judge/wins' is not measured on held-out pairs; did you mean judge/win_rate?"),
        ("loss", "'loss' is not measured on held-out pairs; did you mean eval_loss?"),
        ("maximise eval_loss", "'maximise eval_loss' is no metric: write its name, or min or max before it"),
        ("", "'' is not measured on held-out pairs"),
    ],
)
def test_what_is_no_measure_of_held_out_pairs_is_refused(written: str, expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        read_metric(written)


def test_better_means_larger_or_smaller_as_the_direction_says_and_never_equal() -> None:
    up, down = Measure("eval_a", "max"), Measure("eval_a", "min")
    assert [up.better(2, 1), up.better(1, 2), up.better(1, 1)] == [True, False, False]
    assert [down.better(2, 1), down.better(1, 2), down.better(1, 1)] == [False, True, False]


def test_one_measure_and_two_are_read_alike() -> None:
    assert read_metrics("accuracy") == (read_metric("accuracy"),)
    assert read_metrics(("accuracy", "chosen_drift")) == (read_metric("accuracy"), read_metric("chosen_drift"))


@pytest.mark.parametrize(
    ("written", "guard"),
    [
        ("chosen_drift >= -20", MeasureGuard("eval_logps/chosen_drift", True, -20)),
        ("  eval_loss<=0.7 ", MeasureGuard("eval_loss", False, 0.7)),
        ("accuracy >= 6e-1", MeasureGuard("eval_rewards/accuracies", True, 0.6)),
        ("eval_logps/chosen_drift >= -1234567.5", MeasureGuard("eval_logps/chosen_drift", True, -1234567.5)),
    ],
)
def test_a_guard_is_read_and_read_again_as_it_is_written_down(written: str, guard: MeasureGuard) -> None:
    assert read_guard(written) == guard
    assert read_guard(str(guard)) == guard


@pytest.mark.parametrize(
    "written", ["chosen_drift", "chosen_drift > -20", "chosen_drift >= low", "-20 <= chosen_drift"]
)
def test_what_is_no_guard_is_refused_with_an_example(written: str) -> None:
    with pytest.raises(ValueError, match=r"such as: chosen_drift >= -20"):
        read_guard(written)


def test_a_guard_over_something_that_is_not_held_out_is_refused_with_what_may_be_meant() -> None:
    with pytest.raises(ValueError, match=r"'drift' is not measured .*; did you mean eval_logps/chosen_drift\?"):
        read_guard("drift >= -20")


@pytest.mark.parametrize(("measured", "violation"), [(-15.0, -5.0), (-20.0, 0.0), (-23.5, 3.5)])
def test_the_violation_of_a_lower_bound_is_what_is_missing_to_it(measured: float, violation: float) -> None:
    assert read_guard("chosen_drift >= -20").violation({"eval_logps/chosen_drift": measured}) == violation


@pytest.mark.parametrize(("measured", "violation"), [(0.5, -0.25), (0.75, 0.0), (1.0, 0.25)])
def test_the_violation_of_an_upper_bound_is_what_lies_above_it(measured: float, violation: float) -> None:
    assert read_guard("eval_loss <= 0.75").violation({"eval_loss": measured}) == violation


@pytest.mark.parametrize("metrics", [{}, {"eval_loss": math.nan}, {"eval_loss": -math.inf}])
def test_a_guard_that_cannot_be_judged_does_not_hold(metrics: dict[str, float]) -> None:
    assert read_guard("eval_loss <= 0.75").violation(metrics) == math.inf


@pytest.mark.parametrize("moving", [BETA, NAME, "objective.gamma_beta_ratio", VALUE, "curriculum.mode"])
def test_the_held_out_loss_cannot_compare_trials_whose_loss_differs(moving: str) -> None:
    reason = why_unfair(read_metric("eval_loss"), [RATE, moving])
    assert reason == f"its scale moves with {moving}, so the smallest loss is not the best model"


def test_the_held_out_loss_compares_trials_that_share_it() -> None:
    assert why_unfair(read_metric("eval_loss"), [RATE, "train.schedule.stage2_lr_ratio"]) is None


@pytest.mark.parametrize("name", ["eval_rewards/margins", "eval_rewards/chosen", "eval_rewards/rejected"])
def test_rewards_cannot_compare_trials_of_another_beta(name: str) -> None:
    assert "rewards are multiplied by the objective's own scale, which moves with objective.beta" in (
        why_unfair(read_metric(name), [BETA]) or ""
    )
    assert why_unfair(read_metric(name), [RATE, VALUE]) is None


def test_a_measure_of_easy_pairs_cannot_compare_trials_that_route_otherwise() -> None:
    metric = read_metric("eval_rewards/accuracies/easy")
    assert "so trials would be judged on different pairs" in (why_unfair(metric, [VALUE]) or "")
    assert why_unfair(metric, [BETA]) is None


def test_preference_accuracy_and_drift_compare_trials_of_any_settings() -> None:
    everything = [BETA, NAME, VALUE, RATE, "curriculum.mode"]
    assert [why_unfair(read_metric(name), everything) for name in ("accuracy", "chosen_drift")] == [None, None]


def test_every_measure_has_a_name_in_words() -> None:
    words = {name: metric_in_words(name) for name in HELD_OUT_METRICS}
    assert words["eval_rewards/accuracies"] == "held-out preference accuracy"
    assert words["eval_rewards/accuracies/easy"] == "held-out preference accuracy, easy pairs"
    assert words["eval_rewards/margins/margin_0.5-1"] == "held-out reward margin, margins 0.5 to 1"
    assert not [name for name, text in words.items() if "/" in text or "_" in text]
    assert metric_in_words("win_rate") == "win rate"


def test_a_metric_of_a_held_out_set_is_read_like_that_of_the_main_one() -> None:
    assert read_metric("eval_code_loss") == Measure("eval_code_loss", "min")
    assert read_metric("eval_code_rewards/accuracies") == Measure("eval_code_rewards/accuracies", "max")
    assert str(read_guard("eval_code_logps/chosen_drift >= -20")) == "eval_code_logps/chosen_drift >= -20"
    assert why_unfair(Measure("eval_code_loss", "min"), ["objective.beta"]) is not None
