"""What an arm's scores lack, in words: verdicts that are missing and why, prompts without an answer, empty answers."""

from __future__ import annotations

from collections.abc import Iterator

from mixdpo_ray.benchmarks.verdict import UNREADABLE
from mixdpo_ray.evaluation.results import EvaluatedArm, EvaluatedBenchmark
from mixdpo_ray.pairs.checking import REASONS


def shortfalls(benchmark: EvaluatedBenchmark, arm: EvaluatedArm) -> Iterator[str]:
    """A sentence for each."""
    missing = sum(arm.missing.values())
    if missing:
        yield f"{missing:,} of {arm.verdicts:,} verdicts are missing ({missing / max(1, arm.verdicts):.1%})"
    for reason, count in arm.missing.items():
        yield f"{count:,} {_verdicts(count)}: {UNREADABLE.get(reason, reason)}"
    for said, count in arm.failures.items():
        yield f"{count:,} {'call' if count == 1 else 'calls'} to the judge failed: {said}"
    if arm.answers < benchmark.prompts:
        yield f"{benchmark.prompts - arm.answers:,} of {benchmark.prompts:,} prompts have no answer"
    for reason, count in arm.unanswered.items():
        yield f"{count:,} {'prompt' if count == 1 else 'prompts'} refused: {REASONS.get(reason, reason)}"
    if arm.empty:
        yield f"{arm.empty:,} of {arm.answers:,} answers are empty"
    if arm.cut:
        yield f"{arm.cut:,} of {arm.answers:,} answers were cut at the longest length"


def _verdicts(count: int) -> str:
    return "verdict" if count == 1 else "verdicts"
