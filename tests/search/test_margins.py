"""Thresholds worth trying, from margins that can be counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from mixdpo_ray.curriculum.threshold import Threshold
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.ranges import Choice, Interval, Range
from mixdpo_ray.search.margins import AT_MOST, resolve, thresholds
from mixdpo_ray.search.space import Space
from tests.search.recipes import make_recipe

VALUE, FRACTION, COUNT = (f"curriculum.threshold.{name}" for name in ("value", "hard_fraction", "hard_count"))
RATINGS = np.repeat([0.0, 0.5, 1.0, 1.5, 2.0], [10, 20, 30, 20, 20])  # 100 pairs


def resolved(space: dict[str, Any], margins: Any, **sections: Any) -> Space:
    recipe = make_recipe({"space": space}, **sections)
    return resolve(Space.of(recipe), recipe, np.asarray(margins))


def range_of(share: float, margins: Any, **sections: Any) -> Range:
    return resolved({VALUE: {"margins": share}}, margins, **sections).knobs[0].range


def refusal(space: dict[str, Any], margins: Any, **sections: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        resolved(space, margins, **sections)
    return str(caught.value)


def test_of_ratings_every_difference_is_tried_that_leaves_few_enough_pairs_hard() -> None:
    """Below 0, 0.5, 1, 1.5, 2 lie 0, 10, 30, 60, 80 of 100 pairs."""
    rule = Threshold(value=0.5)
    assert thresholds(RATINGS, rule, 0.5) == [0.0, 0.5, 1.0]
    assert thresholds(RATINGS, rule, 0.6) == [0.0, 0.5, 1.0, 1.5]
    assert thresholds(RATINGS, rule, 1.0) == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_where_ties_with_the_threshold_are_hard_they_are_counted_as_such() -> None:
    """At or below 0, 0.5, 1, 1.5, 2 lie 10, 30, 60, 80 and all 100 pairs; the last one leaves nothing easy."""
    rule = Threshold(value=0.5, tie_rule="le")
    assert thresholds(RATINGS, rule, 0.5) == [0.0, 0.5]
    assert thresholds(RATINGS, rule, 1.0) == [0.0, 0.5, 1.0, 1.5]
    assert range_of(0.5, RATINGS, curriculum={"threshold": {"tie_rule": "le"}}) == Interval(0.0, 0.5, step=0.5)


def test_an_even_grid_keeps_its_order_for_the_sampler() -> None:
    assert range_of(0.5, RATINGS) == Interval(0.0, 1.0, step=0.5)


def test_an_uneven_grid_becomes_a_choice() -> None:
    margins = np.repeat([0.0, 0.5, 2.0, 3.0], [10, 10, 40, 40])
    assert range_of(0.5, margins) == Choice((0.0, 0.5, 2.0))


def test_thirds_which_no_step_reaches_exactly_become_a_choice() -> None:
    """Means of three ratings differ by thirds, and six steps of 0.333333333 end short of 2."""
    margins = np.arange(7).repeat(10) / 3
    range_ = range_of(0.9, margins)
    assert range_ == Choice((0.0, 0.333333333, 0.666666667, 1.0, 1.333333333, 1.666666667, 2.0))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = {range_.suggest(study.ask(), "x") for _ in range(50)}
    hard = {value: Threshold(value=value).hard_pairs(margins) for value in drawn}
    assert sorted(hard.values()) == [0, 10, 20, 30, 40, 50, 60]


def test_margins_that_differ_by_rounding_alone_are_one_threshold() -> None:
    """0.1 + 0.2 is 0.30000000000000004."""
    margins = np.array([0.0] * 5 + [0.3, 0.1 + 0.2] * 5)
    assert thresholds(margins, Threshold(value=0.5), 1.0) == [0.0, 0.3]


def test_of_continuous_margins_a_few_thresholds_at_even_shares_of_hard_pairs_remain() -> None:
    """1,000 margins k^2 / 1e6: below the k-th lie k pairs. 16 thresholds from 0 to 500 hard pairs lie 33.3 apart."""
    margins = (np.arange(1000) / 1000) ** 2
    found = thresholds(margins, Threshold(value=0.5), 0.5)
    hard = [Threshold(value=value).hard_pairs(margins) for value in found]
    assert len(found) == AT_MOST == 16
    assert (hard[0], hard[-1]) == (0, 500)
    assert set(np.diff(hard)) <= {33, 34}


def test_continuous_margins_with_a_heap_of_ties_give_no_threshold_twice() -> None:
    margins = np.sort(np.concatenate([np.full(600, 0.25), np.linspace(0.3, 1, 400)]))
    found = thresholds(margins, Threshold(value=0.5), 0.9)
    assert found == sorted(set(found))
    assert found[0] == 0.25
    assert len(found) <= AT_MOST


def test_margins_that_leave_nothing_to_choose_are_refused_with_what_there_is() -> None:
    assert (
        refusal({VALUE: {"margins": 0.05}}, RATINGS)
        == f"tune.space.{VALUE}: margins 0.05 leaves [0.0]: raise the share, or take the setting out of the space"
    )
    assert "leaves no threshold: raise" in refusal(
        {VALUE: {"margins": 0.05}}, RATINGS, curriculum={"threshold": {"tie_rule": "le"}}
    )


def test_a_space_without_margins_stays_as_it_is() -> None:
    space = resolved({VALUE: {"uniform": [0.1, 1.5]}, "objective.beta": {"uniform": [0.1, 1]}}, RATINGS)
    assert [knob.range for knob in space.knobs] == [Interval(0.1, 1.5), Interval(0.1, 1.0)]


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({VALUE: {"uniform": [0.5, 7.0]}}, f"tune.space.{VALUE}: 7.0 leaves none of the 100 pairs easy"),
        ({VALUE: {"choice": [0.5, 2.5]}}, f"tune.space.{VALUE}: 2.5 leaves none of the 100 pairs easy"),
        ({FRACTION: {"uniform": [0.1, 1.0]}}, f"tune.space.{FRACTION}: 1.0 leaves none of the 100 pairs easy"),
        ({COUNT: {"integer": [10, 150]}}, f"tune.space.{COUNT}: 150 leaves none of the 100 pairs easy"),
        (
            {"curriculum.mode": {"choice": {"router": {VALUE: {"uniform": [0.5, 3.0]}}, "sorted_dpo": None}}},
            f"tune.space.{VALUE}: 3.0 leaves none of the 100 pairs easy",
        ),
    ],
    ids=str,
)
def test_a_threshold_beyond_every_margin_is_refused_with_the_numbers(space: dict[str, Any], expected: str) -> None:
    message = refusal(space, RATINGS)
    assert message == f"{expected} (the margins end at 2): lower its end"


def test_the_largest_margin_itself_is_a_threshold() -> None:
    """Pairs of margin 2 are easy at 2, with ties easy: 20 of 100 are left. With ties hard none is."""
    resolved({VALUE: {"uniform": [0.5, 2.0]}}, RATINGS)
    message = refusal({VALUE: {"uniform": [0.5, 2.0]}}, RATINGS, curriculum={"threshold": {"tie_rule": "le"}})
    assert "2.0 leaves none of the 100 pairs easy" in message


def test_a_mode_that_routes_nothing_takes_any_threshold() -> None:
    resolved({VALUE: {"uniform": [0.5, 7.0]}}, RATINGS, curriculum={"mode": "sorted_dpo"})


def test_several_metrics_are_searched_by_rank_alone() -> None:
    """A margin of 0.5 says nothing about lengths."""
    metrics = {"curriculum.difficulty": {"choice": ["rating_margin", "chosen_length"]}}
    with pytest.raises(
        RecipeError, match=r"tune.space.curriculum.difficulty: a threshold's value belongs to one metric"
    ):
        Space.of(make_recipe({"space": metrics}, curriculum={"threshold": {"value": 1.0}}))
    for curriculum in ({"threshold": {"hard_fraction": 0.2}}, {"mode": "sorted_dpo"}):
        assert Space.of(make_recipe({"space": metrics}, curriculum=curriculum)).settings == ("curriculum.difficulty",)
