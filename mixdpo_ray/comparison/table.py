"""The table of a comparison, as people paste it: Markdown that reads well unrendered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from mixdpo_ray.comparison.results import ResultRow
from mixdpo_ray.intervals import Estimate, ends_of
from mixdpo_ray.training.metric_names import JUDGE_METRICS, metric_in_words
from mixdpo_ray.wording import markdown_table

INTERVAL = "(low to high) is a 95 % interval, cut where a share ends, and ± half of one,"
ASIDE = {  # shown beside the metric that is compared
    "win_rate": "win rate",
    "eval_rewards/accuracies": "accuracy",
    "eval_logps/chosen_drift": "drift",
}


def table_text(rows: Sequence[ResultRow], metric: str, against: str) -> str:
    aside = [name for name in ASIDE if name != metric and any(row.values(name) for row in rows)]
    columns = [
        ["arm", *(row.arm for row in rows)],
        [f"{heading(metric)}, mean", *_shown(metric, [row.mean(metric) for row in rows])],
        [f"against {against}", *_differences(rows, metric)],
        ["seeds", *(f"{row.mean(metric).count}" for row in rows)],
        *([ASIDE[name], *_shown(name, [row.mean(name) for row in rows])] for name in aside),
        ["seconds", *(f"{row.seconds:.1f}" if row.seconds > 0 else "" for row in rows)],
    ]
    if any(row.same_pairs for row in rows):
        counted = "prompts" if metric in JUDGE_METRICS else "pairs"
        columns.insert(4, [counted, *(_pairs(row.mean(metric)) for row in rows)])
    return "\n".join(markdown_table([list(row) for row in zip(*columns, strict=True)]))


def notes_text(rows: Sequence[ResultRow], metric: str) -> str:
    lines = _reading(rows, metric)
    if any(row.values("eval_logps/chosen_drift") for row in rows):
        lines.append("drift: log-prob of held-out chosen answers, policy minus reference.")
    if any(row.values("win_rate") for row in rows):
        lines.append("win rate: share of prompts answered better than by the untrained model; ties count half.")
    lines.append("seconds: of a run, without starting workers and without a first stage that it shared with others.")
    lines += [f"{one.arm}, seed {one.seed} failed: {one.failure}" for row in rows for one in row.failures]
    absent = [row.arm for row in rows if not row.values(metric)]
    if absent:
        lines.append(f"no value of {heading(metric)}: {', '.join(absent)}")
    return "\n".join(lines)


def heading(metric: str) -> str:
    """The name of what is compared."""
    return "true quality" if metric == "quality" else metric_in_words(metric)


def shown(estimate: Estimate, digits: int, sign: str = "", ends: tuple[float, float] | None = None) -> str:
    """A mean with its interval: ± where it may be any number, else from where to where, which stays inside `ends`."""
    if not estimate.count:
        return ""
    mean = f"{estimate.mean:{sign}.{digits}f}"
    if not math.isfinite(estimate.half):
        return mean
    if ends is None:
        return f"{mean} ± {estimate.half:.{digits}f}"
    low, high = (f"{end:{sign}.{digits}f}" for end in estimate.within(ends))
    return f"{mean} ({low} to {high})"


def digits_for(estimates: Sequence[Estimate]) -> int:
    """Decimals that the usual interval is worth, two to four; the same for a whole column, which is easier to read."""
    halves = [estimate.half for estimate in estimates if 0 < estimate.half < math.inf]
    return min(4, max(2, 1 - math.floor(math.log10(median(halves))))) if halves else 3


def _pairs(estimate: Estimate) -> str:
    return f"{estimate.pairs or '?'}" if estimate.count else ""


def _shown(metric: str, estimates: Sequence[Estimate]) -> list[str]:
    digits = digits_for(estimates)
    return [shown(one, digits, ends=ends_of(metric)) for one in estimates]


def _differences(rows: Sequence[ResultRow], metric: str) -> list[str]:
    digits = digits_for([row.mean(metric) for row in rows])
    ends = ends_of(metric, difference=True)
    found = [(row, row.difference(metric)) for row in rows]
    return [
        "" if row.is_yardstick else f"{shown(one, digits, '+', ends)}{' *' if one.excludes_zero else ''}"
        for row, one in found
    ]


def _reading(rows: Sequence[ResultRow], metric: str) -> list[str]:
    """How intervals and * are to be read, and where they say less than they should."""
    if not any(row.same_pairs for row in rows):
        return [
            f"{INTERVAL} over seeds (Student's t), each with held-out pairs of its own; differences are paired by "
            "seed, * excludes 0. No interval: one seed, or equal ones, from which no error can be told."
        ]
    estimates = [one for row in rows if row.values(metric) for one in (row.mean(metric), row.difference(metric))]
    lines = [
        f"{INTERVAL} over seeds and held-out pairs together: half is sqrt(t(seeds - 1)² · variance of the seeds' "
        "means / seeds + t(pairs - 1)² · variance of the pairs' means / pairs). Differences are paired by seed and by "
        "pair; * excludes 0."
    ]
    if any(one.pairs and one.count == 1 for one in estimates):
        lines.append(
            "With one seed it is over held-out pairs alone: another seed may move it further, so there is no *."
        )
    unknown = [
        row.arm for row in rows if row.values(metric) and not (row.mean(metric).pairs and _pairs_known(row, metric))
    ]
    if unknown:
        lines.append(
            "It is over seeds alone, which is too small, and there is no *, where the held-out pairs' own values are "
            "unknown (arms of an earlier version or judged on other pairs, a metric that is no mean over pairs): "
            + ", ".join(unknown)
        )
    return lines


def _pairs_known(row: ResultRow, metric: str) -> bool:
    return row.is_yardstick or not row.gaps(metric) or bool(row.difference(metric).pairs)
