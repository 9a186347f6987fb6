"""A real Optuna study of a made-up training, with the folders that its trials would have left.

Scores follow a smooth hill over the settings, so that a figure has something to show and a person can check it.
"""

from __future__ import annotations

import datetime
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from mixdpo_ray.search.report.page import StudyFacts

THRESHOLD, BETA = "curriculum.threshold.value", "objective.beta"
RATE, RATIO = "train.optimizer.learning_rate", "train.schedule.stage2_lr_ratio"
SPACE: Mapping[str, BaseDistribution] = {
    THRESHOLD: FloatDistribution(0.5, 3.5, step=0.5),
    BETA: FloatDistribution(0.01, 1.0, log=True),
    RATE: FloatDistribution(1e-5, 1e-2, log=True),
    RATIO: FloatDistribution(0.03, 1.0, log=True),
}
OWN = {THRESHOLD: 1.0, BETA: 0.1, RATE: 2e-4, RATIO: 0.3}
RUNGS = ((1, 14), (3, 42), (9, 126))
PAIRS = {"eval_pairs/margin_0-0.5": 120, "eval_pairs/margin_0.5-1": 130, "eval_pairs/margin_1-2": 248}
MORNING = datetime.datetime(2026, 3, 2, 9, 0, 0)


@dataclass
class Maker:
    """Adds trials one after the other; two at a time as far as the clock is concerned."""

    folder: Path
    study: optuna.Study
    space: Mapping[str, BaseDistribution]
    chance: random.Random
    clock: list[float]

    @classmethod
    def start(
        cls, folder: Path, directions: Sequence[str] = ("maximize",), space: Mapping[str, BaseDistribution] = SPACE
    ) -> Maker:
        return cls(folder, optuna.create_study(directions=list(directions)), space, random.Random(0), [0.0, 0.0])

    def draw(self) -> dict[str, Any]:
        return {name: _drawn(one, self.chance) for name, one in self.space.items()}

    def add(self, params: Mapping[str, Any], state: str = "COMPLETE", rungs: int = 3, **attributes: Any) -> None:
        """A trial that got through so many rungs."""
        number, single = len(self.study.trials), len(self.study.directions) == 1
        settings = {name.partition(" [")[0]: value for name, value in params.items()}
        peak = quality(settings) + self.chance.gauss(0, 0.008)
        scores = {budget: peak - 0.05 / budget for budget, _ in RUNGS[:rungs]}
        drift = -60 * settings.get(BETA, 0.1) ** -0.3 * settings.get(RATE, 2e-4) ** 0.3
        worker = self.clock.index(min(self.clock))
        seconds = 4.0 * sum(steps for _, steps in RUNGS[:rungs]) / 10 * self.chance.uniform(0.9, 1.2)
        done = state == "COMPLETE"
        values = None if not done else [scores[9]] if single else [scores[9], drift]
        known = {"settings": settings, "folder": f"trials/{number:04d}", "seconds": seconds,
                 "pairs": 32 * sum(steps for _, steps in RUNGS[:rungs])}  # fmt: skip
        if rungs:
            last = RUNGS[rungs - 1][0]
            known["metrics"] = {"eval_rewards/accuracies": scores[last], "eval_logps/chosen_drift": drift, **PAIRS}
            self.write_metrics(number, *RUNGS[rungs - 1], scores[last], settings)
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState[state], values=values, params=dict(params),
            distributions={name: self.space[name] for name in params},
            user_attrs={**known, **attributes}, intermediate_values=scores if single else {},
            constraints={"guard": attributes["guard"][0]} if "guard" in attributes else None,
        )  # fmt: skip
        start = MORNING + datetime.timedelta(seconds=self.clock[worker])
        trial.datetime_start = start
        if state != "RUNNING":
            trial.datetime_complete = start + datetime.timedelta(seconds=seconds)
        self.clock[worker] += seconds + 3
        self.study.add_trial(trial)

    def write_metrics(self, number: int, budget: int, steps: int, score: float, settings: Mapping[str, Any]) -> None:
        path = self.folder / f"trials/{number:04d}/rung-{budget}/metrics.jsonl"
        path.parent.mkdir(parents=True)
        hard_from = round(steps * (1 - 0.1 - 0.18 * float(settings.get(THRESHOLD, 1.0))))
        lines: list[dict[str, Any]] = []
        for step in range(steps + 1):
            done = step / steps
            if step % max(1, steps // 12) == 0 or step == steps:
                accuracy = 0.5 + (score - 0.5) * (1 - math.exp(-4 * done)) / (1 - math.exp(-4))
                lines.append({"kind": "eval", "step": step, "eval_rewards/accuracies": accuracy})
            if step < steps:
                easy = step < hard_from
                level = 0.69 * math.exp(-1.5 * done * (score - 0.4)) if easy else 1.6 - 0.3 * done
                loss = level + self.chance.gauss(0, 0.03)
                lines.append({"step": step, "stage": "easy" if easy else "hard", "loss": loss})
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def facts(self, **changes: Any) -> StudyFacts:
        metrics = (("eval_rewards/accuracies", "max"), ("eval_logps/chosen_drift", "max"))
        complete = [trial for trial in self.study.trials if trial.state.name == "COMPLETE"]
        best = max(complete, key=lambda trial: trial.values[0], default=None)
        known: dict[str, Any] = {
            "name": "playground",
            "folder": str(self.folder),
            "metrics": metrics[: len(self.study.directions)],
            "guard": None,
            "best": None if best is None else best.number,
            "train_command": "python jobs/train.py outputs/studies/playground/best.yaml",
            "tune_command": "python jobs/tune.py jobs/recipes/playground.yaml tune.num_samples=40",
            "rungs": RUNGS,
            "resources": "2 CPUs / (1 worker x 1 CPU) = 2 trials at a time, 0 CPUs kept free for Ray Data",
            "counters": {
                "preparations": 1,
                "reference passes": 1,
                "pairs scored by the reference": 4980,
                "reference models loaded by trials": 0,
            },
        }
        return StudyFacts(**{**known, **changes})


def quality(settings: Mapping[str, Any]) -> float:
    """Best at threshold 1.5, beta 0.05, rate 1e-3, ratio 0.2; the rate matters most."""
    far: float = (
        0.06 * abs(settings.get(THRESHOLD, 1.5) - 1.5)
        + 0.06 * abs(math.log10(settings.get(BETA, 0.05) / 0.05))
        + 0.11 * abs(math.log10(settings.get(RATE, 1e-3) / 1e-3))
        + 0.03 * abs(math.log10(settings.get(RATIO, 0.2) / 0.2))
    )
    return 0.86 - far


def _drawn(distribution: BaseDistribution, chance: random.Random) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return chance.choice(distribution.choices)
    assert isinstance(distribution, FloatDistribution)
    if distribution.step:
        return distribution.low + distribution.step * chance.randint(
            0, round((distribution.high - distribution.low) / distribution.step)
        )
    if distribution.log:
        return math.exp(chance.uniform(math.log(distribution.low), math.log(distribution.high)))
    return chance.uniform(distribution.low, distribution.high)


def make_search(folder: Path, trials: int = 20) -> Maker:
    """A study as most are: successive halving, a NaN, an exception that was tried again, a trial that still runs."""
    maker = Maker.start(folder)
    maker.add(OWN)
    for number in range(1, trials):
        params = maker.draw()
        if number == 5:
            maker.add(params, "FAIL", 1, reason="the loss of step 17 is not finite (nan); nothing was updated")
        elif number == 9:
            maker.add(params, "FAIL", 0, reason="the driver ended while the trial ran")
            maker.add(params, continues=9)
        elif quality(params) < 0.66:
            maker.add(params, "PRUNED", 1)
        elif quality(params) < 0.70:
            maker.add(params, "PRUNED", 2)
        else:
            maker.add(params)
    return maker


def make_two_objectives(folder: Path, trials: int = 16) -> Maker:
    maker = Maker.start(folder, ("maximize", "maximize"))
    maker.add(OWN)
    for _ in range(trials - 1):
        maker.add(maker.draw())
    return maker


def make_conditional(folder: Path, trials: int = 24) -> Maker:
    """Each objective brings a beta of its own."""
    space = {
        "objective.name": CategoricalDistribution(["dpo", "ipo", "simpo"]),
        "objective.beta [dpo]": FloatDistribution(0.01, 1.0, log=True),
        "objective.beta [simpo]": FloatDistribution(1.0, 10.0, log=True),
        RATE: SPACE[RATE],
        THRESHOLD: SPACE[THRESHOLD],
    }
    maker = Maker.start(folder, space=space)
    for _ in range(trials):
        params = maker.draw()
        kept = {name: value for name, value in params.items() if " [" not in name or params["objective.name"] in name}
        maker.add(kept)
    return maker
