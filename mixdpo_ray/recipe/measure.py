"""What trials are compared by: measures of held-out pairs or of what models write, and what a winner must keep.

judge/win_rate is the share of held-out prompts on which the trained model's answer beats that of the model before
training, judge/quality the mean rating, 1 to 10; both by answers.judge. Nothing else compares objectives fairly:
some of them lead in held-out accuracy and write worse answers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mixdpo_ray.training.metric_names import JUDGE_METRICS, is_a_loss, set_and_metric, unknown_metric

Direction = Literal["max", "min"]
SHORT = {"chosen_drift": "eval_logps/chosen_drift", "accuracy": "eval_rewards/accuracies"}


@dataclass(frozen=True)
class Measure:
    name: str
    direction: Direction

    def better(self, value: float, than: float) -> bool:
        return value > than if self.direction == "max" else value < than


@dataclass(frozen=True)
class MeasureGuard:
    name: str
    at_least: bool
    bound: float

    def violation(self, metrics: Mapping[str, float]) -> float:
        """Above 0 where it does not hold, also where it cannot be judged."""
        value = metrics.get(self.name, math.nan)
        if not math.isfinite(value):
            return math.inf
        return self.bound - value if self.at_least else value - self.bound

    def __str__(self) -> str:
        return f"{self.name} {'>=' if self.at_least else '<='} {self.bound:.15g}"


def read_metric(written: str, others: Sequence[str] = ()) -> Measure:
    """`NAME`, `max NAME` or `min NAME`: losses and likelihoods per token go down, everything else up.

    `others`: names that the reader knows beside those of held-out pairs, for a mistyped one.
    """
    direction, _, name = written.rpartition(" ")
    name = SHORT.get(name, name)
    if direction not in ("", "max", "min"):
        raise ValueError(f"{written!r} is no metric: write its name, or min or max before it")
    if name not in JUDGE_METRICS and (problem := unknown_metric(name, (*JUDGE_METRICS, *others))):
        raise ValueError(problem)
    return Measure(name, "min" if direction == "min" or (is_a_loss(name) and not direction) else "max")


def read_metrics(written: str | Iterable[str]) -> tuple[Measure, ...]:
    return tuple(read_metric(name) for name in ([written] if isinstance(written, str) else written))


def read_guard(written: str) -> MeasureGuard:
    match = re.fullmatch(r"\s*([\w/.+-]+?)\s*(>=|<=)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*", written)
    if match is None:
        raise ValueError("write a measure, >= or <=, and a number, such as: chosen_drift >= -20")
    name, sign, bound = match.groups()
    name = SHORT.get(name, name)
    if name not in JUDGE_METRICS and (problem := unknown_metric(name, JUDGE_METRICS)):
        raise ValueError(problem)
    return MeasureGuard(name, sign == ">=", float(bound))


def why_unfair(metric: Measure, searched: Iterable[str]) -> str | None:
    """The reason why a measure cannot compare trials whose settings differ in what is searched."""
    objective = next((name for name in searched if name.split(".")[0] == "objective"), None)
    routing = next((name for name in searched if name.startswith(("curriculum.threshold", "curriculum.mode"))), None)
    moving, name = objective or routing, set_and_metric(metric.name)[1]
    if re.match(r"eval_loss\b", name) and moving:
        return f"its scale moves with {moving}, so the smallest loss is not the best model"
    if re.match(r"eval_rewards/(margins|chosen|rejected)\b", name) and objective:
        return f"rewards are multiplied by the objective's own scale, which moves with {objective}"
    if re.search(r"/(easy|hard)$", metric.name) and routing:
        return f"which held-out pairs are easy moves with {routing}, so trials would be judged on different pairs"
    return None
