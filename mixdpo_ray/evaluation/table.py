"""The tables of an evaluation, as people paste them: Markdown that reads well unrendered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mixdpo_ray.benchmarks.resampling import BenchmarkScore
from mixdpo_ray.benchmarks.verdict import UNREADABLE
from mixdpo_ray.evaluation.results import (
    EvaluatedArm,
    EvaluatedBenchmark,
    EvaluationResults,
    JudgingCost,
    smallest_shown,
)
from mixdpo_ray.wording import markdown_table

HOW_TO_READ = (
    "(low to high): 95 % of what prompts drawn with replacement give. *: an interval of a difference without 0. shows: "
    "the difference that so many prompts tell from none in 80 of 100 evaluations."
)
BESIDE: Mapping[str, str] = {  # shown beside the scores that arms are compared by
    "win_rate": "win rate",
    "length_controlled_win_rate": "length-controlled",
    "score": "score",
    "first_turn": "turn 1",
    "second_turn": "turn 2",
    "average_length": "length",
    "baseline_length": "theirs",
    "flip_rate": "flips",
    "first_shown_share": "first wins",
}


def results_text(results: EvaluationResults) -> str:
    """All tables, and what a reader of them must know."""
    parts = [f"{results.name}, judged by {results.judge}"]
    parts += ["\n".join([heading_of(one), "", *benchmark_table(one), *_lines(one)]) for one in results.benchmarks]
    return "\n\n".join([*parts, "\n".join([HOW_TO_READ, *_cost(results)])])


def heading_of(one: EvaluatedBenchmark) -> str:
    beside = f", compared with the answers of {one.references}" if one.references else ""
    return f"{one.name}: {one.prompts:,} prompts{beside}"


def score_in_words(name: str) -> str:
    category, slash, kind = name.rpartition("/")
    return f"{category}{slash and ': '}{BESIDE.get(kind, kind.replace('_', ' '))}"


def benchmark_table(one: EvaluatedBenchmark) -> list[str]:
    aside = [name for name in BESIDE if name not in one.headlines and any(name in arm.scores for arm in one.arms)]
    columns = [["arm", *(arm.name for arm in one.arms)]]
    for name in one.headlines:
        columns.append([score_in_words(name), *(_shown(arm.scores.get(name)) for arm in one.arms)])
        if one.differences:
            columns.append([f"against {one.against}", *(_difference(one, arm.name, name) for arm in one.arms)])
        columns.append(["shows", *(_shows(one, arm, name) for arm in one.arms)])
    for name in aside:
        columns.append([BESIDE[name], *(_brief(arm.scores.get(name)) for arm in one.arms)])
    columns.append(["missing", *(f"{sum(arm.missing.values())} of {arm.verdicts}" for arm in one.arms)])
    return markdown_table([list(row) for row in zip(*columns, strict=True)])


def notes_on(one: EvaluatedBenchmark) -> Iterator[str]:
    """What of the arms is not in the table."""
    for arm in one.arms:
        if arm.no_score:
            yield f"{arm.name} has no score: {arm.no_score}"
        elif arm.missing:
            told = ", ".join(f"{count} {reason} ({UNREADABLE[reason]})" for reason, count in arm.missing.items())
            yield f"{arm.name}: verdicts are missing: {told}"
        yield from (f"{arm.name}: {count} calls failed: {reason}" for reason, count in arm.failures.items())
        yield from (f"{arm.name}: {count} prompts without an answer: {why}" for why, count in arm.unanswered.items())
        if arm.empty or arm.cut:
            yield f"{arm.name}: {arm.empty} answers are empty, {arm.cut} were cut at the longest length"
    for note in dict.fromkeys(note for arm in one.arms for note in arm.notes):
        named = [arm.name for arm in one.arms if note in arm.notes]
        yield note if len(named) == len(one.arms) else f"{', '.join(named)}: {note}"


def _lines(one: EvaluatedBenchmark) -> list[str]:
    return ["", *(f"- {note}" for note in notes)] if (notes := list(notes_on(one))) else []


def _cost(results: EvaluationResults) -> Iterator[str]:
    total = sum((one.cost for one in results.benchmarks), JudgingCost())
    yield (
        f"verdicts: {results.spent.calls:,} calls of this job{_price(results, results.spent)}; "
        f"{results.cached:,} were there and cost nothing; all that are shown took {total.calls:,} calls"
        f"{_price(results, total)}"
    )


def _price(results: EvaluationResults, cost: JudgingCost) -> str:
    return f", price {cost.price:,.4g}" if results.currency_known else ""


def _shown(score: BenchmarkScore | None) -> str:
    return "none" if score is None else f"{score.value:.2f} ({score.low:.2f} to {score.high:.2f})"


def _brief(score: BenchmarkScore | None) -> str:
    return "" if score is None else f"{score.value:.1f}" if score.value < 1000 else f"{score.value:,.0f}"


def _difference(one: EvaluatedBenchmark, arm: str, name: str) -> str:
    found = next((each.apart for each in one.differences if (each.arm, each.score) == (arm, name)), None)
    if found is None:
        return ""
    star = " *" if found.excludes_zero else ""
    return f"{found.value:+.2f} ({found.low:+.2f} to {found.high:+.2f}){star}"


def _shows(one: EvaluatedBenchmark, arm: EvaluatedArm, name: str) -> str:
    """The smallest distance that is shown: from another arm where there is one, else from the score itself."""
    apart = next((each.apart for each in one.differences if (each.arm, each.score) == (arm.name, name)), None)
    score = apart or arm.scores.get(name)
    return "" if score is None else f"{smallest_shown(score):.2f}"
