"""Benchmarks in which a judge compares two answers: what its games count, and how it leans.

Judges prefer a position, so that both orders are judged and averaged: a prompt counts when all its games have a
verdict. How often the verdict flips with the order and how often the answer shown first wins stand beside each win
rate, and so does length. A judge who takes the first answer unseen now and then draws every win rate towards one half:
where both orders agree, `agreed_win_rate`, he does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np

from mixdpo_ray.benchmarks.benchmark import Benchmark, BenchmarkPrompt, Game, JudgedArm
from mixdpo_ray.benchmarks.length_control import ArmLengths
from mixdpo_ray.benchmarks.resampling import BenchmarkScore, Ratio, Statistic
from mixdpo_ray.benchmarks.verdict import JudgeVerdict
from mixdpo_ray.errors import EvaluationError

FIRST_SHOWN, AGREED = "first_shown_share", "agreed_win_rate"
BOTH_ORDERS: tuple[Game, ...] = ("baseline_first", "model_first")


def won(game: Game, verdict: JudgeVerdict) -> float:
    """The model's share of a readable verdict: what the first answer gets, or what is left of it."""
    if verdict.value is None:
        raise ValueError(f"a missing verdict is no win and no loss: {verdict.reason}")
    return verdict.value if game == "model_first" else 1 - verdict.value


class PairwiseBenchmark(Benchmark):
    whole_prompts: ClassVar[bool] = True  # whether one missing game takes its prompt out

    def games(self, prompt: BenchmarkPrompt) -> tuple[Game, ...]:
        return BOTH_ORDERS

    def shown(self, prompt: BenchmarkPrompt, game: Game, answer: tuple[str, ...]) -> tuple[str, str]:
        """The two answers in the game's order."""
        if not prompt.reference:
            raise EvaluationError(
                f"prompt {prompt.item}: no answer to compare with; give a reference, or another arm's"
            )
        pair = (answer[0], prompt.reference[0])
        return pair if game == "model_first" else pair[::-1]

    def played(self, arm: JudgedArm) -> dict[str, dict[Game, JudgeVerdict]]:
        """The readable games of each prompt that counts."""
        played = {}
        for item, prompt in arm.prompts.items():
            verdicts = {game: arm.verdict(item, game) for game in self.games(prompt)}
            readable = {game: verdict for game, verdict in verdicts.items() if verdict.value is not None}
            if readable and (len(readable) == len(verdicts) or not self.whole_prompts):
                played[item] = readable
        return played

    def battles(self, arm: JudgedArm) -> dict[str, tuple[float, float]]:
        """The sum of the model's outcomes by prompt, and of how many battles."""
        return {
            item: (
                sum(won(game, verdict) * verdict.battles for game, verdict in games.items()),
                sum(verdict.battles for verdict in games.values()),
            )
            for item, games in self.played(arm).items()
        }

    def lengths(self, arm: JudgedArm) -> ArmLengths:
        """Mean outcomes by prompt beside the lengths of the model's and of the baseline's answers."""
        outcome = {item: sums / count for item, (sums, count) in self.battles(arm).items()}
        model = {item: sum(map(len, arm.answers[item])) for item in outcome}
        return ArmLengths(outcome, model, {item: sum(map(len, arm.prompts[item].reference)) for item in outcome})

    def notes(self, scores: Mapping[str, BenchmarkScore], statistics: Mapping[str, Statistic]) -> Iterator[str]:
        for name, share in scores.items():
            category, _, measured = name.rpartition("/")
            if measured == FIRST_SHOWN and not share.low <= 50 <= share.high:
                yield from _note_on_position(category, scores)

    def leaning(self, arm: JudgedArm) -> dict[str, Statistic]:
        """What the judge and the lengths have to do with a win rate; equal answers were shown to no judge."""
        played = self.played(arm)
        equal = {item for item in played if arm.answers[item] == arm.prompts[item].reference}
        shown = set(played) - equal or equal
        first = {
            item: (sum((v.value or 0) * v.battles for v in games.values()), sum(v.battles for v in games.values()))
            for item, games in played.items()
            if item in shown
        }
        both = {item: games for item, games in played.items() if len(games) == len(BOTH_ORDERS)}
        agreed = {item: wins.pop() for item, games in both.items() if len(wins := _wins(games)) == 1}
        flips = {item: float(_flips(games)) for item, games in both.items() if item in shown}
        lengths = self.lengths(arm)
        return {
            FIRST_SHOWN: Ratio.of(first),
            **({"flip_rate": Ratio.mean(flips)} if flips else {}),
            **({AGREED: Ratio.mean(agreed)} if agreed else {}),
            "average_length": Ratio.mean(lengths.model, percent=False),
            "baseline_length": Ratio.mean(lengths.baseline, percent=False),
        }


def _note_on_position(category: str, scores: Mapping[str, BenchmarkScore]) -> Iterator[str]:
    of = f"{category}/" if category else ""
    share, agreed = scores[of + FIRST_SHOWN], scores.get(of + AGREED)
    bias, low, high = (2 * end / 100 - 1 for end in (share.value, share.low, share.high))
    told = f"{of}position bias {bias:+.2f} ({low:+.2f} to {high:+.2f}) for the answer shown first, unseen"
    yield told + (f"; where both orders agree the win rate is {agreed.value:.1f}" if agreed else "")


def _wins(games: Mapping[Game, JudgeVerdict]) -> set[float]:
    """Who wins the games, the model (1), the other (0) or neither: one of these where the order decides nothing."""
    return {(1 + np.sign(won(game, verdict) - 0.5)) / 2 for game, verdict in games.items()}


def _flips(games: Mapping[Game, JudgeVerdict]) -> bool:
    """Whether one answer wins in one order and the other one in the other; a tie is no flip."""
    return _wins(games) == {0, 1}
