"""evaluations/<name>/page.html: one file that opens offline and shows what the judge said, how sure that is, and why.

Answers are data: whatever they hold, a page shows it as text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mixdpo_ray.evaluation.page_examples import ShownExample, shown_examples
from mixdpo_ray.evaluation.page_tables import (
    ApartTable,
    HeadlineTable,
    ScoreTable,
    apart_tables,
    headline_tables,
    score_table,
)
from mixdpo_ray.evaluation.results import EvaluatedBenchmark, EvaluationResults, JudgingCost
from mixdpo_ray.evaluation.shortfalls import shortfalls
from mixdpo_ray.pages import rendered_page

NAMED_ARMS = 3


@dataclass(frozen=True)
class ShownBenchmark:
    name: str
    kind: str
    prompts: int
    references: str
    headlines: tuple[HeadlineTable, ...]
    apart: tuple[ApartTable, ...]
    scores: ScoreTable
    shortfalls: tuple[tuple[str, tuple[str, ...]], ...]  # of each arm that has some
    notes: tuple[tuple[str, tuple[str, ...]], ...]
    examples: tuple[ShownExample, ...]
    cost: tuple[tuple[str, str], ...]


def evaluation_page(results: EvaluationResults) -> bytes:
    shown = [_shown(results, benchmark) for benchmark in results.benchmarks]
    return rendered_page(
        "mixdpo_ray.evaluation",
        "page.html.j2",
        name=results.name,
        judge=results.judge,
        title=_title(results),
        benchmarks=shown,
        spent=(*_cost(results.spent, results.currency_known), ("verdicts of earlier jobs", f"{results.cached:,}")),
    )


def _title(results: EvaluationResults) -> str:
    arms = list(dict.fromkeys(arm.name for benchmark in results.benchmarks for arm in benchmark.arms))
    if len(arms) > NAMED_ARMS:
        return f"{len(arms)} arms judged"
    return f"{', '.join(arms[:-1])} and {arms[-1]} judged" if len(arms) > 1 else f"{''.join(arms) or 'Nothing'} judged"


def _shown(results: EvaluationResults, benchmark: EvaluatedBenchmark) -> ShownBenchmark:
    return ShownBenchmark(
        name=benchmark.name,
        kind=benchmark.kind,
        prompts=benchmark.prompts,
        references=benchmark.references,
        headlines=tuple(headline_tables(benchmark)),
        apart=tuple(apart_tables(benchmark)),
        scores=score_table(benchmark),
        shortfalls=tuple((arm.name, found) for arm in benchmark.arms if (found := tuple(shortfalls(benchmark, arm)))),
        notes=tuple(_notes(benchmark)),
        examples=tuple(shown_examples(benchmark)),
        cost=tuple(_cost(benchmark.cost, results.currency_known)) if benchmark.cost.calls else (),
    )


def _notes(benchmark: EvaluatedBenchmark) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What concerns all arms is said once."""
    arms = benchmark.arms
    shared = [note for note in arms[0].notes if all(note in arm.notes for arm in arms)] if len(arms) > 1 else []
    if shared:
        yield "all arms", tuple(shared)
    for arm in arms:
        if own := tuple(note for note in arm.notes if note not in shared):
            yield arm.name, own


def _cost(cost: JudgingCost, currency_known: bool) -> Iterator[tuple[str, str]]:
    yield "calls", f"{cost.calls:,}"
    if cost.input_tokens or cost.output_tokens:  # as the judge's server counts them, where it does
        yield "tokens read", f"{cost.input_tokens:,}"
        yield "tokens written", f"{cost.output_tokens:,}"
    if currency_known:
        yield "price", f"{cost.price:,.2f}"
