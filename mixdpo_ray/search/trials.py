"""The trials of a study as a person reads them, and which of them won."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from mixdpo_ray.recipe.measure import Measure
from mixdpo_ray.search.attempts import CONTINUED, FOLDER, folded
from mixdpo_ray.search.samplers import GUARD
from mixdpo_ray.search.study import REASON, SETTINGS

SECONDS, PAIRS, CPU_SECONDS, METRICS = "seconds", "pairs", "cpu_seconds", "metrics"  # user attributes, set per rung


@dataclass(frozen=True)
class TrialRow:
    number: int
    state: str
    values: tuple[float, ...]  # of the last rung; empty unless COMPLETE
    rungs: Mapping[int, float]  # budget -> score
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    guarded: bool  # whether what a winner must keep is kept, as far as it was measured
    reason: str
    continued: int  # how often its driver stopped, and it went on
    folder: str
    seconds: float
    pairs: int
    started: datetime | None
    ended: datetime | None


def rows(study: optuna.Study) -> list[TrialRow]:
    """Every trial that was started, while none runs: what the storage calls RUNNING was interrupted."""
    trials = folded(study.get_trials(deepcopy=False))
    return [row_of(trial) for trial in trials if trial.state != TrialState.WAITING]


def row_of(trial: FrozenTrial) -> TrialRow:
    notes = trial.user_attrs
    return TrialRow(
        number=trial.number,
        state="INTERRUPTED" if trial.state == TrialState.RUNNING else trial.state.name,
        values=tuple(trial.values or ()) if trial.state == TrialState.COMPLETE else (),
        rungs=dict(trial.intermediate_values),
        settings=notes.get(SETTINGS) or trial.params,  # what was drawn so far, where Ctrl-C came in between
        metrics=notes.get(METRICS, {}),
        guarded=notes.get(GUARD, [0.0])[0] <= 0,
        reason=notes.get(REASON, ""),
        continued=notes.get(CONTINUED, 0),
        folder=notes.get(FOLDER) or "",
        seconds=notes.get(SECONDS, 0.0),
        pairs=notes.get(PAIRS, 0),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
    )


def best(trials: Sequence[TrialRow], metrics: Sequence[Measure]) -> TrialRow | None:
    """The best trial by the first metric, of those trained to the end that keep the guard; of equals the earliest."""
    winner: TrialRow | None = None
    for row in sorted(trials, key=lambda row: row.number):
        usable = row.state == "COMPLETE" and row.guarded
        if usable and (winner is None or metrics[0].better(row.values[0], winner.values[0])):
            winner = row
    return winner


def front(trials: Sequence[TrialRow], metrics: Sequence[Measure]) -> list[TrialRow]:
    """Those that no other beats in one metric without losing in the other."""
    usable = [row for row in trials if row.state == "COMPLETE" and row.guarded]
    return [row for row in usable if not any(_dominates(other, row, metrics) for other in usable)]


def _dominates(one: TrialRow, other: TrialRow, metrics: Sequence[Measure]) -> bool:
    pairs = list(zip(metrics, one.values, other.values, strict=True))
    return any(metric.better(a, b) for metric, a, b in pairs) and not any(metric.better(b, a) for metric, a, b in pairs)


def write_trials(
    trials: Sequence[TrialRow], metrics: Sequence[Measure], settings: Sequence[str], rungs: Sequence[int]
) -> str:
    text = io.StringIO()
    names = [metric.name for metric in metrics]
    heads = ["number", "state", *names, *(f"rung {rung}" for rung in rungs), *settings]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*heads, "guard kept", "seconds", "pairs", "started", "ended", "continued", "reason"])
    for row in trials:
        values = [*row.values, *[""] * (len(names) - len(row.values))]
        scores = [row.rungs.get(rung, "") for rung in rungs]
        drawn = [row.settings.get(setting, "") for setting in settings]
        times = [time.isoformat(timespec="seconds") if time else "" for time in (row.started, row.ended)]
        rest = [row.guarded if row.metrics else "", round(row.seconds, 1), row.pairs, *times, row.continued, row.reason]
        writer.writerow([row.number, row.state, *values, *scores, *drawn, *rest])
    return text.getvalue()
