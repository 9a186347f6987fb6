"""What a study's page needs to know besides the trials themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StudyFacts:
    name: str
    folder: str  # studies/<name>, holds trials/<number>/rung-<budget>/metrics.jsonl
    metrics: tuple[tuple[str, str], ...]  # (name, "max" or "min"), one or two
    guard: str | None  # "eval_logps/chosen_drift >= -20"
    best: int | None  # number of the winning trial; None where no trial is usable
    train_command: str  # reproduces the winner
    tune_command: str  # repeats or extends the study
    rungs: tuple[tuple[int, int], ...]  # (budget, steps of the recipe's own curriculum at that rung)
    resources: str  # one line of arithmetic: why so many trials at a time
    counters: Mapping[str, int | float | str]  # {"reference passes": 1, ...}
    after: str = ""  # " after rung 1 of 2", where scores are not those of whole trials
