"""What the trials reached, in numbers and in words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mixdpo_ray.intervals import NORMAL, ends_of, wilson
from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.training.metric_names import JUDGE_METRICS, metric_in_words, of_set, set_and_metric

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

ACCURACY, DRIFT = "eval_rewards/accuracies", "eval_logps/chosen_drift"


@dataclass(frozen=True)
class Target:
    number: int
    metric: str
    upward: bool  # more is better
    without_export: bool  # the study's only one
    after: str = ""  # which rung

    @property
    def words(self) -> str:
        return f"{metric_in_words(self.metric)}{self.after}"

    @property
    def title(self) -> str | None:
        """Over a figure that is drawn once per metric."""
        return None if self.without_export else self.words

    @property
    def target(self) -> Callable[[FrozenTrial], float] | None:
        """What Optuna's figures ask for. None for the only objective, as they then also know what is better."""
        return None if self.without_export else self.of

    def of(self, trial: FrozenTrial) -> float:
        return float(trial.values[self.number])

    def better(self, one: float, other: float) -> bool:
        return one > other if self.upward else one < other

    def text(self, value: float) -> str:
        return f"{value:.4f}" if set_and_metric(self.metric)[1].startswith(ACCURACY) else number_text(value)


def objectives(facts: StudyFacts) -> list[Target]:
    without_export = len(facts.metrics) == 1
    numbered = enumerate(facts.metrics)
    return [Target(n, metric, way == "max", without_export, facts.after) for n, (metric, way) in numbered]


def trials_of(study: Study) -> list[FrozenTrial]:
    trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
    return trials


def scored(study: Study) -> list[FrozenTrial]:
    """Trials that ran to the end with a finite score in each metric: the ones that Optuna's figures compare."""
    complete = (trial for trial in trials_of(study) if trial.state.name == "COMPLETE")
    return [trial for trial in complete if all(map(math.isfinite, trial.values or [math.nan]))]


def trial_by_number(study: Study, number: int | None) -> FrozenTrial | None:
    return next((trial for trial in trials_of(study) if trial.number == number), None)


def winner_of(study: Study, facts: StudyFacts) -> FrozenTrial | None:
    return next((trial for trial in scored(study) if trial.number == facts.best), None)


def settings_shown(trial: FrozenTrial) -> Mapping[str, Any]:
    """Settings by their dotted names in the recipe; what Optuna was asked where the trial did not get that far."""
    chosen: Mapping[str, Any] = trial.user_attrs.get("settings") or trial.params
    return chosen


def metrics_of(trial: FrozenTrial) -> Mapping[str, float]:
    found: Mapping[str, float] = trial.user_attrs.get("metrics") or {}
    return found


def guard_holds(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in (*(trial.user_attrs.get("guard") or ()), *trial.constraints.values()))


def held_out_pairs(trial: FrozenTrial, metric: str) -> int | None:
    """How many pairs, or prompts, stand behind a mean; None of easy or hard pairs alone, which are not counted."""
    if metric in JUDGE_METRICS:
        return round(metrics_of(trial).get("judge/prompts", 0)) or None
    if metric.endswith(("/easy", "/hard")):
        return None
    bucket = metric.rpartition("/")[2] if "/margin_" in metric else "margin_"
    counted = of_set(f"eval_pairs/{bucket}", set_and_metric(metric)[0])
    counts = metrics_of(trial).items()
    return round(sum(count for name, count in counts if name.startswith(counted))) or None


def what_is_counted(metric: str) -> str:
    """What a metric is a mean over."""
    return "held-out prompts" if metric in JUDGE_METRICS else "held-out pairs"


def standard_error(objective: Target, trial: FrozenTrial) -> float | None:
    """The standard error that a score has from the draw of its pairs; None where it is not known."""
    ends = error_interval(objective, trial)
    return (ends[1] - ends[0]) / (2 * NORMAL) if ends else None


def error_interval(objective: Target, trial: FrozenTrial) -> tuple[float, float] | None:
    """The 95 % interval over pairs."""
    pairs, score = held_out_pairs(trial, objective.metric), objective.of(trial)
    if not pairs:
        return None
    if set_and_metric(objective.metric)[1].startswith(ACCURACY):
        return wilson(score, pairs) if 0 <= score <= 1 else None
    name, plain = set_and_metric(objective.metric)
    named = of_set(plain.replace("eval_", "eval_std/", 1).replace("judge/", "judge/std/", 1), name)
    if not (deviation := metrics_of(trial).get(named)):
        return None
    half = NORMAL * deviation / math.sqrt(pairs)
    low, high = ends_of(objective.metric) or (-math.inf, math.inf)
    return max(low, score - half), min(high, score + half)


def same_score(done: Sequence[FrozenTrial], facts: StudyFacts) -> str | None:
    """Why a figure of scores would say nothing, where it would."""
    alike = [all(one.of(trial) == one.of(done[0]) for trial in done) for one in objectives(facts)]
    return "every compared trial has the same score" if done and all(alike) else None


def hover_text(study: Study, number: int) -> str:
    """A trial in a few lines, for figures; Optuna's own is the whole trial as JSON."""
    trial = trial_by_number(study, number)
    if trial is None:
        return f"trial {number}"
    lines = [f"trial {number}", *(f"{name}: {setting_text(value)}" for name, value in settings_shown(trial).items())]
    return "<br>".join(lines)


def number_text(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "not a number" if math.isnan(value) else "infinite"


def setting_text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(value) if isinstance(value, int) else number_text(value)
    return value if isinstance(value, str) else json.dumps(value, default=str)


def short_names(names: list[str]) -> dict[str, str]:
    """The last part of each dotted name, or as many parts as tell it from the others and from plain words."""
    return {name: _short(name, names) for name in names}


def _short(name: str, names: list[str]) -> str:
    parts = name.split(".")
    for count in range(1, len(parts)):
        ending = ".".join(parts[-count:])
        shared = [other for other in names if other == ending or other.endswith(f".{ending}")]
        if len(shared) == 1 and ending.split(" ")[0] not in ("name", "value", "mode", "path"):
            return ending
    return name


def words_for_list(items: list[Any]) -> str:
    texts = [str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


def crosses(done: Sequence[FrozenTrial]) -> str:
    """The end of a caption that explains crosses, where a trial breaks the guard."""
    broken = any(value > 0 for trial in done for value in trial.constraints.values())
    return "; crosses break the guard" if broken else ""


def too_few(done: Sequence[FrozenTrial], wanted: int) -> str:
    return f"it needs {wanted} scored trials or more, and the study has {len(done) or 'none'}"


def varied(done: Sequence[FrozenTrial]) -> list[str]:
    """Searched settings with more than one value among these trials."""
    names = sorted({name for trial in done for name in trial.params})
    return [name for name in names if len({repr(trial.params[name]) for trial in done if name in trial.params}) > 1]


def by_score(facts: StudyFacts) -> str:
    """The part of a caption that names the rung, where scores are of one."""
    return f", by the score{facts.after}" if facts.after else ""
