"""The tune section of a recipe: what is searched, by which measure, and how long."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.recipe.measure import read_guard, read_metric, read_metrics
from mixdpo_ray.recipe.ranges import read_range
from mixdpo_ray.settings import Settings

Sampler = Literal["tpe", "random", "gp", "cmaes", "grid"]


class EarlyStoppingSettings(Settings):
    """Each rung trains a fresh, whole curriculum, thinned; the last one is the recipe's own."""

    pruner: Literal["asha", "median", "none"] = Field("asha", description="Which trials stop after a rung")
    rungs: int = Field(2, ge=1, le=6, description="How many; without a pruner there is only the last")
    reduction_factor: int = Field(3, ge=2, description="A rung trains this many times the windows of the one before")

    @property
    def budgets(self) -> tuple[int, ...]:
        """The budget of every rung, in units of the first one's."""
        rungs = 1 if self.pruner == "none" else self.rungs
        return tuple(self.reduction_factor**rung for rung in range(rungs))


class TuneSettings(Settings):
    space: dict[str, Any] = Field(
        {},
        description="Ranges, as objective.name: {choice: {dpo: {objective.beta: {loguniform: [0.01, 1]}}, simpo: {}}}; "
        "threshold, objective, learning rate, stage2_lr_ratio where not given",
    )
    first_trials: tuple[dict[str, Any], ...] = Field(
        (), description="Tried after the recipe's own settings: setting -> value, what is left out is drawn"
    )
    num_samples: int = Field(20, ge=1, description="Trials of the whole study; raise it later to extend the study")
    metric: str | tuple[str, ...] = Field(
        "eval_rewards/accuracies",
        description="What is compared, of the held-out pairs, or judge/win_rate or judge/quality of what models write; "
        "two give a Pareto front",
    )
    guard: str | None = Field(None, description="What a winner must keep, such as: chosen_drift >= -20")
    sampler: Sampler = Field("tpe", description="How settings are drawn; gp and cmaes need the extra of their name")
    seed: int = Field(42, ge=0, description="Of the sampler")
    early_stopping: EarlyStoppingSettings = EarlyStoppingSettings()
    workers_per_trial: int | None = Field(None, ge=1, description="Training workers of a trial; cluster.num_workers")
    max_concurrent_trials: int | None = Field(None, ge=1, description="Trials at a time; as many as fit the cluster")
    max_failures: int = Field(2, ge=0, description="How often a trial that died is started again")
    storage: str | None = Field(None, description="SQLAlchemy URL of a database for Optuna; a file beside the study")

    @field_validator("space")
    @classmethod
    def _ranges(cls, space: dict[str, Any]) -> dict[str, Any]:
        for setting, written in space.items():
            read_range(setting, written)
        return space

    @field_validator("metric")
    @classmethod
    def _metrics(cls, metric: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (metric,) if isinstance(metric, str) else metric
        if not 1 <= len(set(names)) == len(names) <= 2:
            raise ValueError("give one metric, or two different ones for a Pareto front")
        for name in names:
            read_metric(name)
        return metric

    @property
    def named_metrics(self) -> tuple[str, ...]:
        """What trials are compared by, and what a winner must keep."""
        metrics = tuple(metric.name for metric in read_metrics(self.metric))
        return metrics if self.guard is None else (*metrics, read_guard(self.guard).name)

    @field_validator("guard")
    @classmethod
    def _guard(cls, guard: str | None) -> str | None:
        return None if guard is None else str(read_guard(guard))

    @field_validator("storage")
    @classmethod
    def _no_password(cls, url: str | None) -> str | None:
        if url is None:
            return None
        before, at, _ = url.split("://")[-1].partition("@")
        if (at and ":" in before) or re.search(r"[?&](password|passwd)=", url):
            raise ValueError("a password in the URL would be written into files: leave it to PGPASSWORD or ~/.my.cnf")
        return url

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if not isinstance(self.metric, str) and self.early_stopping.pruner != "none":
            raise ValueError("two metrics have no order to stop trials by: write early_stopping: {pruner: none}")
        return self
