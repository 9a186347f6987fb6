"""Rows of data.sft among the hard pairs: exact, even, and the same for every world."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mixdpo_ray.curriculum.plan import Plan, make_plan
from mixdpo_ray.curriculum.settings import CurriculumSettings


def plan_of(hard: list[bool], rows: int, **curriculum: Any) -> Plan:
    return make_plan(CurriculumSettings(**curriculum), np.array(hard), 4, 1, rows)


def trained(plan: Plan) -> list[tuple[str, list[int]]]:
    return [(one.stage, one.positions.tolist()) for one in map(plan.window, range(plan.steps))]


def test_rows_lie_evenly_among_the_hard_pairs_of_their_stage() -> None:
    plan = plan_of([False] * 4 + [True] * 6, 3)
    assert trained(plan)[0] == ("easy", [0, 1, 2, 3])
    order = [position for _, positions in trained(plan)[1:] for position in positions]
    assert sorted(order) == list(range(4, 13))
    assert [sum(position >= 10 for position in positions) for _, positions in trained(plan)[1:]] == [1, 1, 1]
    for step in range(plan.steps):
        window = plan.window(step)
        assert window.hard.tolist() == window.alone.tolist() == (window.positions >= 4).tolist()
        assert (np.diff(window.positions) > 0).all()


@pytest.mark.parametrize("mode", ["router", "router_shuffled"])
def test_a_router_has_them_among_its_hard_pairs_wherever_those_are(mode: str) -> None:
    hard = [False, True, False, False, True, False, False, True, False, False, False, False]
    plan = plan_of(hard, 3, mode=mode)
    assert trained(plan) == [
        ("mixed", [0, 1, 2, 12]),
        ("mixed", [3, 4, 5, 13]),
        ("mixed", [6, 7, 8, 14]),
        ("mixed", [9, 10, 11]),
    ]
    assert plan.window(0).hard.tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("curriculum", "stages"),
    [
        ({}, ["easy", "hard", "hard"]),
        ({"order": "ascending"}, ["hard", "hard", "easy"]),
        ({"mode": "router"}, ["mixed"] * 3),
        ({"mode": "router", "order": "ascending"}, ["mixed"] * 3),
        ({"mode": "router_shuffled"}, ["mixed"] * 3),
    ],
)
def test_without_hard_pairs_they_are_where_those_would_be(curriculum: dict[str, Any], stages: list[str]) -> None:
    plan = plan_of([False] * 4, 8, **curriculum)
    assert [stage for stage, _ in trained(plan)] == stages
    order = [position for _, positions in trained(plan) for position in positions]
    assert sorted(order) == list(range(12))
    if curriculum.get("order") == "ascending":
        assert order[-1] == 3
    elif curriculum.get("mode") != "router_shuffled":
        assert order[:4] == [0, 1, 2, 3]


def test_many_rows_between_few_pairs_keep_their_order() -> None:
    plan = plan_of([False] * 4 + [True] * 2, 10)
    rows = [position for _, positions in trained(plan) for position in positions if position >= 6]
    assert rows == list(range(6, 16))
