"""The cluster section of a recipe. It imports no ray, so that a recipe can be read anywhere."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from mixdpo_ray.settings import Settings


class ClusterSettings(Settings):
    num_workers: int = Field(2, ge=1, description="Training workers (ranks)")
    use_gpu: bool | None = Field(None, description="One GPU per worker; by default if the cluster has GPUs")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs that each training worker reserves")
    resources_per_worker: dict[str, float] = Field({}, description="Further Ray resources of each worker")
    placement_strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = Field(
        "PACK", description="How Ray places the workers on nodes"
    )
    max_failures: int = Field(3, ge=0, description="How often a dead worker group is started again")
    reference_workers: int | None = Field(
        None,
        ge=1,
        description="Actors for reference log-probs; as many as training workers by default",
    )
    prefetch_windows: int = Field(4, ge=1, description="Windows that are read ahead of training")
    windows_per_read: int = Field(10, ge=1, description="Windows that one Ray Data read task fetches")
    start_timeout_seconds: float = Field(600, gt=0, description="How long to wait for resources before giving up")

    @property
    def free_cpus_needed(self) -> float:
        """Each rank streams through a read task of one CPU of its own; with fewer free the job would hang silently."""
        return float(self.num_workers)

    @property
    def cpus_needed(self) -> float:
        return self.num_workers * self.cpus_per_worker + self.free_cpus_needed
