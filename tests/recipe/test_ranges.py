"""Each kind of range: what it draws, what lies in it, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest

from mixdpo_ray.recipe.ranges import KINDS, Choice, Integer, Interval, Margins, Range, Value, read_range

EXAMPLES: dict[str, Any] = {  # kind -> arguments that it takes
    "choice": [0.1, 0.5, 2.5],
    "uniform": [0.0, 2.0],
    "loguniform": [0.01, 1.0],
    "integer": [2, 5],
    "quantised": [0.5, 2.0, 0.5],
    "margins": 0.4,
}


def draws(range_: Range, count: int = 50) -> list[Value]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [range_.suggest(study.ask(), "x") for _ in range(count)]


def refusal(written: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the message is what the caller looks at
        read_range("objective.beta", written)
    return str(caught.value)


def test_every_kind_of_range_has_an_example_here() -> None:
    assert EXAMPLES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", [kind for kind in EXAMPLES if kind != "margins"])
def test_what_is_drawn_lies_in_the_range_and_differs(kind: str) -> None:
    range_ = read_range("objective.beta", {kind: EXAMPLES[kind]})
    drawn = draws(range_)
    assert all(range_.holds(value) for value in drawn)
    assert len(set(drawn)) > 2


@pytest.mark.parametrize("kind", EXAMPLES)
def test_the_corners_of_a_range_lie_in_it(kind: str) -> None:
    range_ = read_range("objective.beta", {kind: EXAMPLES[kind]})
    assert all(range_.holds(value) for value in range_.corners())


def test_a_logarithmic_range_draws_as_often_below_its_geometric_middle_as_above() -> None:
    """The middle of 0.01 and 1 is 0.1, on the logarithm; on the number itself nine tenths would lie above."""
    below = sum(value < 0.1 for value in draws(Interval(0.01, 1.0, log=True), 200))
    assert 80 <= below <= 120
    assert sum(value < 0.1 for value in draws(Interval(0.01, 1.0), 200)) < 40


def test_a_quantised_range_draws_its_grid_and_nothing_else() -> None:
    assert set(draws(read_range("x", {"quantised": [0.5, 2.0, 0.5]}))) == {0.5, 1.0, 1.5, 2.0}


def test_a_grid_of_tenths_has_the_decimal_numbers_that_a_person_writes() -> None:
    """0.1 + 2 x 0.1 is 0.30000000000000004, which is no rating difference."""
    range_ = read_range("x", {"quantised": [0.1, 0.7, 0.1]})
    assert range_.values() == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert set(draws(range_, 100)) == {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}


def test_integers_are_drawn_with_both_ends() -> None:
    drawn = draws(Integer(2, 5))
    assert set(drawn) == {2, 3, 4, 5}
    assert all(type(value) is int for value in drawn)


def test_values_can_be_counted_unless_a_range_is_continuous() -> None:
    counted = {kind: read_range("x", {kind: arguments}).values() for kind, arguments in EXAMPLES.items()}
    assert counted == {
        "choice": (0.1, 0.5, 2.5),
        "uniform": None,
        "loguniform": None,
        "integer": (2, 3, 4, 5),
        "quantised": (0.5, 1.0, 1.5, 2.0),
        "margins": None,
    }


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (Choice(("dpo", "simpo")), ["dpo"], ["ipo", None]),
        (Interval(0.5, 2.0), [0.5, 1, 2.0], [0.4, 2.1, "1", True, None, math.nan]),
        (Interval(0.5, 2.0, step=0.5), [0.5, 1, 1.5], [0.75, 2.5, 1.49]),
        (Integer(2, 5), [2, 5], [1, 6, 3.0, True, "3"]),
        (Margins(0.5), [0, 0.25, 7.0], ["0.5", True, None]),
    ],
    ids=repr,
)
def test_a_range_knows_what_lies_in_it(range_: Range, inside: list[Any], outside: list[Any]) -> None:
    assert [range_.holds(value) for value in inside] == [True] * len(inside)
    assert [range_.holds(value) for value in outside] == [False] * len(outside)


@pytest.mark.parametrize(("low", "high"), [(8, 64), (0, 7), (1, 8), (16, 32)])
def test_the_probes_of_an_interval_hold_a_number_that_is_not_whole(low: float, high: float) -> None:
    """By it a recipe's field for whole numbers is found out, whatever the ends are."""
    assert any(probe % 1 for probe in Interval(low, high).probes())


def test_a_choice_in_braces_gives_each_value_ranges_of_its_own() -> None:
    range_ = read_range("objective.name", {"choice": {"dpo": {"objective.beta": {"uniform": [0.1, 1]}}, "ipo": None}})
    assert isinstance(range_, Choice)
    assert range_.options == ("dpo", "ipo")
    assert range_.branches == {"dpo": {"objective.beta": {"uniform": [0.1, 1]}}, "ipo": {}}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            0.1,
            "0.1 is no range; write {kind: ...} with one of choice, uniform, loguniform, integer, quantised, margins",
        ),
        ([0.1, 1], "[0.1, 1] is no range; write {kind: ...}"),
        ({}, "{} is no range; write {kind: ...}"),
        ({"uniform": [0, 1], "choice": [1]}, "is no range; write {kind: ...}"),
        ({"logunifrom": [0.1, 1]}, "unknown kind of range 'logunifrom'; did you mean loguniform?"),
        ({"choice": []}, "choice []: give a list of single values"),
        ({"choice": "dpo"}, "choice 'dpo': give a list of single values"),
        ({"choice": [["dpo", "ipo"]]}, "choice [['dpo', 'ipo']]: give a list of single values"),
        ({"choice": {}}, "choice {}: give a list of single values"),
        ({"choice": [1, 2, 1]}, "choice [1, 2, 1]: a value is given twice"),
        ({"choice": {"dpo": {"objective.beta": {"uniform": [2, 1]}}}}, "objective.beta: uniform [2, 1]: it is empty"),
        ({"choice": {"dpo": 0.1}}, "dpo 0.1: give the ranges"),
        ({"choice": {"dpo": ["objective.beta"]}}, "dpo ['objective.beta']: give the ranges"),
        ({"uniform": [0.5]}, "uniform [0.5]: give [low, high]"),
        ({"uniform": "0.1-0.5"}, "uniform '0.1-0.5': give [low, high]"),
        ({"uniform": [1, 1]}, "uniform [1, 1]: it is empty: low must be below high"),
        ({"uniform": [2, 1]}, "uniform [2, 1]: it is empty: low must be below high"),
        ({"uniform": ["low", 1]}, "uniform ['low', 1]: give numbers"),
        ({"uniform": [False, True]}, "uniform [False, True]: give numbers"),
        ({"uniform": [0, math.inf]}, "uniform [0, inf]: give numbers"),
        ({"uniform": [math.nan, 1]}, "uniform [nan, 1]: give numbers"),
        ({"loguniform": [0, 1]}, "loguniform [0, 1]: a logarithm needs ends above 0"),
        ({"loguniform": [-1, 1]}, "loguniform [-1, 1]: a logarithm needs ends above 0"),
        ({"integer": [1, 2.5]}, "integer [1, 2.5]: the ends must be whole numbers"),
        ({"integer": [3, 3]}, "integer [3, 3]: it is empty"),
        ({"quantised": [0, 1]}, "quantised [0, 1]: give [low, high, step]"),
        ({"quantised": [0, 1, 0]}, "quantised [0, 1, 0]: the step must be above 0 and fit between the ends"),
        ({"quantised": [0, 1, 2]}, "quantised [0, 1, 2]: the step must be above 0 and fit between the ends"),
        ({"quantised": [0, 1, 0.3]}, "quantised [0, 1, 0.3]: the ends must lie a whole number of steps apart"),
        ({"quantised": [0, 1, 0.333333333]}, "the ends must lie a whole number of steps apart"),
        ({"margins": 0}, "margins 0: give the largest share of hard pairs, above 0 and at most 1"),
        ({"margins": 1.5}, "margins 1.5: give the largest share of hard pairs, above 0 and at most 1"),
        ({"margins": True}, "margins True: give the largest share of hard pairs"),
    ],
    ids=str,
)
def test_a_range_that_cannot_be_is_refused_with_its_setting_and_its_arguments(written: Any, expected: str) -> None:
    message = refusal(written)
    assert message.startswith("objective.beta: ")
    assert expected in message
