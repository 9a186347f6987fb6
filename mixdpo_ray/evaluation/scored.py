"""Scores of judged arms and their differences, prompt by prompt, as results.py keeps them.

An arm that lacks more verdicts than its benchmark allows has no score and says why; the others are scored without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mixdpo_ray.benchmarks.benchmark import Benchmark, BenchmarkPrompt, JudgedArm
from mixdpo_ray.benchmarks.pairwise import PairwiseBenchmark, won
from mixdpo_ray.benchmarks.resampling import RESAMPLES, Statistic, difference
from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.evaluation.judged import AnswerTexts, JudgedAnswers
from mixdpo_ray.evaluation.results import (
    ArmDifference,
    EvaluatedArm,
    EvaluatedBenchmark,
    ExampleVerdict,
    JudgedExample,
)
from mixdpo_ray.recipe.judge import PriceSettings

EXAMPLES = 20  # prompts whose answers are shown, evenly spread


@dataclass(frozen=True)
class ArmAnswers:
    """What one arm answered to the prompts of a benchmark."""

    model: str  # whose answers they are, for people
    texts: AnswerTexts
    unanswered: Mapping[str, int] = field(default_factory=dict)  # prompts by reason
    empty: int = 0
    cut: int = 0


@dataclass(frozen=True)
class ComparedWith:
    """What arms are compared with: whose answers stand beside theirs, and which arm differences are taken from."""

    references: str = ""  # an arm, which then has no score of its own; or a name for the benchmark's own answers
    against: str = ""


def score_arms(
    name: str,
    benchmark: Benchmark,
    judged: JudgedAnswers,
    answers: Mapping[str, ArmAnswers],
    compared: ComparedWith,
    prices: PriceSettings,
    *,
    resamples: int = RESAMPLES,
) -> EvaluatedBenchmark:
    reasons = {name: _why_without_score(benchmark, arm) for name, arm in judged.arms.items()}
    fit = {name: arm for name, arm in judged.arms.items() if not reasons[name]}
    statistics = benchmark.statistics(fit) if fit else {}
    missing = {name: _missing(benchmark, arm) for name, arm in judged.arms.items()}
    scores = benchmark.scores_of(fit, statistics, missing, resamples=resamples)
    arms = tuple(
        EvaluatedArm(
            name=arm,
            model=answers[arm].model,
            answers=len(answers[arm].texts),
            verdicts=len(benchmark.verdicts(judged.arms[arm])),
            scores=scores[arm].scores if arm in scores else {},
            no_score=reasons[arm],
            missing=missing[arm],
            failures=judged.failures(arm),
            unanswered=answers[arm].unanswered,
            empty=answers[arm].empty,
            cut=answers[arm].cut,
            notes=scores[arm].notes if arm in scores else (),
        )
        for arm in judged.arms
    )
    prompts = next(iter(judged.arms.values())).prompts
    return EvaluatedBenchmark(
        name=name,
        kind=name,
        main=type(benchmark).main,
        prompts=len(prompts),
        references=compared.references,
        against=compared.against,
        arms=arms,
        differences=tuple(_differences(benchmark, statistics, compared.against, resamples)),
        cost=judged.cost(prices),
        examples=tuple(_examples(benchmark, judged, list(prompts.values()))),
    )


def _why_without_score(benchmark: Benchmark, arm: JudgedArm) -> str:
    try:
        benchmark.missing(arm)
    except EvaluationError as error:
        return str(error)
    return ""


def _missing(benchmark: Benchmark, arm: JudgedArm) -> dict[str, int]:
    reasons = [verdict.reason for verdict in benchmark.verdicts(arm) if verdict.reason]
    return {reason: reasons.count(reason) for reason in sorted(set(reasons))}


def _differences(
    benchmark: Benchmark, statistics: Mapping[str, Mapping[str, Statistic]], against: str, resamples: int
) -> Iterator[ArmDifference]:
    for name in statistics if against in statistics else ():
        for key in statistics[name] if name != against else ():
            if key.rpartition("/")[2] == benchmark.main and key in statistics[against]:
                apart = difference(statistics[name][key], statistics[against][key], resamples=resamples)
                yield ArmDifference(name, against, key, apart)


def _examples(
    benchmark: Benchmark, judged: JudgedAnswers, prompts: Sequence[BenchmarkPrompt]
) -> Iterator[JudgedExample]:
    for prompt in evenly_spread(prompts, EXAMPLES):
        shown = {name: arm for name, arm in judged.arms.items() if prompt.item in arm.answers}
        yield JudgedExample(
            prompt.item,
            prompt.category,
            prompt.turns,
            prompt.reference,
            {name: arm.answers[prompt.item] for name, arm in shown.items()},
            {name: tuple(_verdicts(benchmark, judged, name, prompt)) for name in shown},
        )


def _verdicts(
    benchmark: Benchmark, judged: JudgedAnswers, name: str, prompt: BenchmarkPrompt
) -> Iterator[ExampleVerdict]:
    for game in benchmark.games(prompt):
        verdict, reply = judged.arms[name].verdict(prompt.item, game), judged.replies.get((name, prompt.item, game))
        value = verdict.value
        if value is not None and isinstance(benchmark, PairwiseBenchmark):
            value = won(game, verdict)
        yield ExampleVerdict(game, value, verdict.reason or "", reply.text if reply else "")


def evenly_spread(every: Sequence[BenchmarkPrompt], most: int | None) -> list[BenchmarkPrompt]:
    """The first one and others, in their order: at most so many."""
    if most is None or len(every) <= most:
        return list(every)
    return [every[number * len(every) // most] for number in range(most)]
