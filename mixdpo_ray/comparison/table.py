"""The table of a comparison, as people paste it: Markdown that reads well unrendered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from mixdpo_ray.comparison.results import ResultRow
from mixdpo_ray.comparison.student import Estimate

ASIDE = {  # shown beside the metric that is compared, as plain means
    "win_rate": "win rate",
    "eval_rewards/accuracies": "accuracy",
    "eval_logps/chosen_drift": "drift",
}


def table_text(rows: Sequence[ResultRow], metric: str, against: str) -> str:
    aside = [name for name in ASIDE if name != metric and any(row.values(name) for row in rows)]
    head = ["arm", f"{metric}, mean", f"against {against}", "seeds", *(ASIDE[name] for name in aside), "seconds"]
    digits = digits_for([row.mean(metric) for row in rows])
    cells = [_cells(row, metric, aside, digits) for row in rows]
    return "\n".join(_markdown([head, *cells]))


def notes_text(rows: Sequence[ResultRow], metric: str) -> str:
    lines = ["± is half a 95 % interval over seeds (Student's t); differences are paired by seed, * excludes 0."]
    if any(row.values("eval_logps/chosen_drift") for row in rows):
        lines.append("drift: log-prob of held-out chosen answers, policy minus reference.")
    lines.append("seconds: of a run, without starting workers and without a first stage that it shared with others.")
    lines += [f"{one.arm}, seed {one.seed} failed: {one.failure}" for row in rows for one in row.failures]
    absent = [row.arm for row in rows if not row.values(metric)]
    if absent:
        lines.append(f"no value of {metric}: {', '.join(absent)}")
    return "\n".join(lines)


def shown(estimate: Estimate, digits: int, sign: str = "") -> str:
    if not estimate.count:
        return ""
    interval = f" ± {estimate.half:.{digits}f}" if math.isfinite(estimate.half) else ""
    return f"{estimate.mean:{sign}.{digits}f}{interval}"


def digits_for(estimates: Sequence[Estimate]) -> int:
    """Decimals that the usual interval is worth, two to four; the same for a whole column, which is easier to read."""
    halves = [estimate.half for estimate in estimates if 0 < estimate.half < math.inf]
    return min(4, max(2, 1 - math.floor(math.log10(median(halves))))) if halves else 3


def _cells(row: ResultRow, metric: str, aside: Sequence[str], digits: int) -> list[str]:
    mean, difference = row.mean(metric), row.difference(metric)
    mark = " *" if difference.excludes_zero else ""
    plain = [row.mean(name) for name in aside]
    return [
        row.arm,
        shown(mean, digits),
        "" if row.is_yardstick else f"{shown(difference, digits, '+')}{mark}",
        f"{mean.count}",
        *(f"{one.mean:.3f}" if one.count else "" for one in plain),
        f"{row.seconds:.1f}" if row.seconds else "",
    ]


def _markdown(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
