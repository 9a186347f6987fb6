"""The playground's pairs and the judgement in words."""

from __future__ import annotations

from collections.abc import Sequence

from mixdpo_ray.playground.annotator import RatedPair
from mixdpo_ray.playground.judge import Verdict, mean_with_interval
from mixdpo_ray.playground.prompts import OPERATIONS


def describe_pairs(pairs: Sequence[RatedPair]) -> str:
    ties = sum(pair.margin == 0 for pair in pairs) / len(pairs)
    wrong = sum(pair.right == 0 for pair in pairs) / len(pairs)
    return f"{len(pairs)} rated pairs; {ties:.0%} are exact ties, {wrong:.0%} are labelled the wrong way round"


def describe_verdict(verdict: Verdict) -> str:
    low, high = verdict.interval
    won, tied, lost = verdict.counts
    return "\n".join(
        [
            *_table(_samples(verdict)),
            "",
            f"answers to {len(verdict.prompts)} held-out prompts, before and after",
            f"  mean true quality  {_mean(verdict.quality_before)} -> {_mean(verdict.quality_after)}  (of 10)",
            f"  win rate           {verdict.win_rate:.1%}, 95 % interval {low:.1%} to {high:.1%}",
            f"                     {won} won, {tied} tied, {lost} lost; a tie counts half",
        ]
    )


def _mean(values: Sequence[float]) -> str:
    mean, half = mean_with_interval(values)
    return f"{mean:.2f} ± {half:.2f}"


def _samples(verdict: Verdict) -> list[list[str]]:
    """Heading, and the first prompt of each operation: as they come, not the nicest ones."""
    rows = [["prompt", "ideal", "before", "", "after", ""]]
    for operation in OPERATIONS:
        first = next((n for n, prompt in enumerate(verdict.prompts) if prompt.operation == operation), None)
        if first is None:
            continue
        prompt = verdict.prompts[first]
        before = [verdict.before[first], f"{verdict.quality_before[first]:.1f}"]
        after = [verdict.after[first], f"{verdict.quality_after[first]:.1f}"]
        rows.append([prompt.text, " ".join(prompt.ideal), *before, *after])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
