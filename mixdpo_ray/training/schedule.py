"""The learning rate of a step, computed from the step alone."""

from __future__ import annotations

import math

from mixdpo_ray.curriculum.plan import Plan, Window
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.training.settings import OptimizerSettings, ScheduleSettings, TrainSettings

# AdamW moves every weight by about the rate at each step, and weights are about 0.02; adapters begin at 0
HIGHEST_RATE, HIGHEST_OF_ADAPTERS = 1e-2, 1e-1


def absurd_rate(optimizer: OptimizerSettings, *, adapters: bool) -> str | None:
    """What to say of a peak rate that nobody can mean."""
    highest = HIGHEST_OF_ADAPTERS if adapters else HIGHEST_RATE
    rates = {"learning_rate": optimizer.learning_rate, "muon_learning_rate": optimizer.muon_learning_rate or 0.0}
    name, rate = max(rates.items(), key=lambda item: item[1])
    if rate <= highest:
        return None
    return (
        f"train.optimizer.{name} {rate:g} is far more than models learn by: about 1e-6 suits billions of "
        "weights, 1e-4 adapters, 1e-3 a tiny model"
    )


def learning_rate(window: Window, plan: Plan, train: TrainSettings) -> float:
    """Warm-up, then decay: over the phase of this window, or over the whole run."""
    settings = train.schedule
    step, steps = (window.phase_step, window.phase_steps) if settings.kind == "per_stage" else (window.step, plan.steps)
    second = window.stage != plan.segments[0].stage
    peak = train.optimizer.learning_rate * (settings.stage2_lr_ratio if second else 1.0)
    return peak * multiplier(step, steps, settings)


def multiplier(step: int, steps: int, settings: ScheduleSettings) -> float:
    """Factor of transformers' schedules, but a warm-up of w steps begins at 1 / (w + 1): no step is spent at rate 0."""
    warmup = warmup_steps(steps, settings)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, steps - warmup)
    if settings.lr_scheduler_type == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress if settings.lr_scheduler_type == "linear" else 1.0


def warmup_steps(steps: int, settings: ScheduleSettings) -> int:
    given = settings.warmup_steps
    return math.ceil(given * steps) if given < 1 else round(given)


def check_warmup(plan: Plan, settings: ScheduleSettings) -> None:
    """Refuse a warm-up that would not end within what it warms up."""
    if settings.kind == "single":
        lengths = {"run": plan.steps}
    else:
        windows = (plan.window(step) for step in _phase_starts(plan))
        lengths = {f"{window.stage} stage": window.phase_steps for window in windows}
    for name, steps in lengths.items():
        if settings.warmup_steps >= 1 and warmup_steps(steps, settings) > steps:
            raise RecipeError(
                f"train.schedule.warmup_steps {settings.warmup_steps:g} is longer than the {name} ({steps} steps): "
                "give fewer steps, or a share below 1"
            )


def _phase_starts(plan: Plan) -> list[int]:
    starts, step = [], 0
    while step < plan.steps:
        starts.append(step)
        step += plan.window(step).phase_steps
    return starts
