"""The cluster section of a recipe. It imports no ray, so that a recipe can be read anywhere."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mixdpo_ray.settings import Settings

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
