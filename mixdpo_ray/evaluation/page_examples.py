"""Prompts, answers side by side and verdicts, as the page shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixdpo_ray.benchmarks.verdict import UNREADABLE
from mixdpo_ray.evaluation.results import EvaluatedBenchmark, ExampleVerdict, JudgedExample

GAMES = {
    "baseline_first": "reference shown first",
    "model_first": "reference shown second",
    "turn_1": "first turn",
    "turn_2": "second turn",
}
OPENING = 110  # signs of a prompt that its line shows


@dataclass(frozen=True)
class ShownVerdict:
    kind: str  # won, lost, even, rated or missing
    words: str
    said: str  # by the judge


@dataclass(frozen=True)
class ShownAnswer:
    name: str
    turns: tuple[str, ...]
    verdicts: tuple[ShownVerdict, ...] = ()


@dataclass(frozen=True)
class ShownExample:
    item: str
    category: str
    opening: str
    turns: tuple[str, ...]
    answers: tuple[ShownAnswer, ...]  # the reference's first

    @property
    def outcomes(self) -> tuple[tuple[str, ShownVerdict], ...]:
        return tuple((answer.name, verdict) for answer in self.answers for verdict in answer.verdicts)


def shown_examples(benchmark: EvaluatedBenchmark) -> Iterator[ShownExample]:
    for example in benchmark.examples:
        reference = [ShownAnswer(benchmark.references or "reference", example.reference)] if example.reference else []
        arms = [_answer(example, name) for name in example.answers]
        opening = " ".join(" ".join(example.turns).split())
        cut = opening if len(opening) <= OPENING else f"{opening[: OPENING - 1]}…"
        yield ShownExample(example.item, example.category, cut, example.turns, (*reference, *arms))


def _answer(example: JudgedExample, name: str) -> ShownAnswer:
    verdicts = tuple(map(_verdict, example.verdicts.get(name, ())))
    return ShownAnswer(name, example.answers[name], verdicts)


def _verdict(verdict: ExampleVerdict) -> ShownVerdict:
    game = GAMES.get(verdict.game, verdict.game)
    if verdict.value is None:
        why = UNREADABLE.get(verdict.reason, verdict.reason or "no reason is known")
        return ShownVerdict("missing", f"{game}: no verdict, {why}", verdict.words)
    if verdict.game.startswith("turn_"):
        return ShownVerdict("rated", f"{game}: {verdict.value:g} of 10", verdict.words)
    kind = "even" if verdict.value == 0.5 else "won" if verdict.value > 0.5 else "lost"
    share = "" if verdict.value in (0, 0.5, 1) else f" ({verdict.value:.2f} of the win)"
    return ShownVerdict(kind, f"{game}: {'a tie' if kind == 'even' else kind}{share}", verdict.words)
