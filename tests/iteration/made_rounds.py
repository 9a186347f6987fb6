"""Rounds as an iteration would leave them."""

from __future__ import annotations

from mixdpo_ray.iteration.results import RoundPairs, RoundResult
from mixdpo_ray.iteration.round_judge import JudgedAgainst


def against(win_rate: float, half: float = 0.04) -> JudgedAgainst:
    return JudgedAgainst(win_rate, win_rate - half, win_rate + half, win_rate - 0.02, 0.0, 200, {})


def made_round(number: int, over_last: float, over_first: float = 0.6) -> RoundResult:
    pairs = RoundPairs(
        100, 400, {"truth": 6.5}, 80, 4, 9, (0.5, 1.25, 3.0), {"all_answers_equal": 10, "all_scores_tie": 6}
    )
    return RoundResult(
        number, "weights", f"out/iterations/made/round-{number}/runs/made/model", pairs, against(over_last),
        against(over_first), 22.0, 20.0, "<b>a judge</b>", 12, 0.75, 3.0,
    )  # fmt: skip
