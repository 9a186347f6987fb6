"""The cluster section of a recipe. It imports no ray, so that a recipe can be read anywhere."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.settings import Settings

# Ray's syntax, of Kubernetes: keys may have a prefix, values may be one of several, and either may be denied
_NAME = r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_KEY = re.compile(rf"({_NAME}/)?{_NAME}")
_VALUE = re.compile(rf"!?{_NAME}|!?in\({_NAME}(, ?{_NAME})*\)")
Workers = Annotated[int, Field(ge=1)]


class ClusterSettings(Settings):
    num_workers: Workers | tuple[Workers, Workers] = Field(
        2, description="Training workers (ranks); [fewest, most]: as many as the cluster has room for, at any time"
    )
    use_gpu: bool | None = Field(None, description="One GPU per worker; by default if the cluster has GPUs")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs that each training worker reserves")
    resources_per_worker: dict[str, float] = Field({}, description="Further Ray resources of each worker")
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="How Ray spreads the workers over nodes"
    )
    max_failures: int = Field(3, ge=0, description="How often a dead worker group is started again")
    reference_workers: int | None = Field(
        None,
        ge=1,
        description="Actors for reference log-probs; as many as training workers by default",
    )
    scoring: Literal["auto", "whole", "sharded"] = Field(
        "auto",
        description="How models that only score or answer lie: a whole copy with each worker, or one in shards over "
        "all training workers; by default in shards where a copy does not fit",
    )
    label_selector: dict[str, str] = Field(
        {},
        description="Labels of the nodes that workers may run on, as Ray writes it: spot, !spot, in(a, b), !in(a, b)",
    )
    accelerator_type: str | None = Field(
        None, description="The kind of GPU that each worker needs, by Ray's name for it, such as A100 or H100"
    )
    start_timeout_seconds: float = Field(600, gt=0, description="How long to wait for resources before giving up")
    hang_seconds: float = Field(
        60,
        gt=0,
        description="Without a sign of life from any worker for so long, the one that is behind is named and restarted",
    )

    @model_validator(mode="after")
    def _fewest_before_most(self) -> Self:
        if self.fewest_workers > self.most_workers:
            raise ValueError(f"num_workers {list(self._range)}: write the smaller number first")
        return self

    @field_validator("label_selector")
    @classmethod
    def _as_ray_writes_it(cls, selector: dict[str, str]) -> dict[str, str]:
        for key, value in selector.items():
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r} is no label: give a name such as region, or ray.io/accelerator-type")
            if not _VALUE.fullmatch(value):
                raise ValueError(f"{key}: {value!r} selects nothing: write a value, !value, in(a, b) or !in(a, b)")
        return selector

    @model_validator(mode="after")
    def _kinds_are_of_gpus(self) -> Self:
        if self.accelerator_type is None:
            return self
        if self.use_gpu is False:
            raise ValueError(f"accelerator_type {self.accelerator_type}: use_gpu is false; leave one of them out")
        if not re.fullmatch(_NAME, self.accelerator_type):
            raise ValueError(f"accelerator_type {self.accelerator_type!r}: give one name, such as A100")
        return self

    @property
    def fewest_workers(self) -> int:
        return self._range[0]

    @property
    def most_workers(self) -> int:
        return self._range[1]

    @property
    def elastic(self) -> bool:
        return self.fewest_workers < self.most_workers

    @property
    def free_cpus_needed(self) -> float:
        """Each rank streams through a read task of one CPU of its own; with fewer free the job would hang silently."""
        return float(self.fewest_workers)

    @property
    def cpus_needed(self) -> float:
        """CPUs that the fewest workers need to start at all."""
        return self.cpus_for(self.fewest_workers)

    def cpus_for(self, workers: int) -> float:
        """Their own, and one for each to read through."""
        return workers * (self.cpus_per_worker + 1)

    @property
    def _range(self) -> tuple[int, int]:
        return self.num_workers if isinstance(self.num_workers, tuple) else (self.num_workers, self.num_workers)
