"""The rank of this process among the workers, and their number. Read once at the edge, passed down as a value."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixdpo_ray.training.row_slices import RowSlice

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: str = "cpu"  # "cpu" or "cuda:<n>"
    sequence_parallel: int = 1  # ranks that run the same rows together, each a slice; neighbours, so on one node

    @property
    def leads(self) -> bool:
        """Whether this is the worker that writes what exists once."""
        return self.rank == 0

    @property
    def shares(self) -> int:
        """The number of shares that pairs are dealt into."""
        return self.size // self.sequence_parallel

    @property
    def share(self) -> int:
        """The number of this rank's share, which the ranks beside it may have too."""
        return self.rank // self.sequence_parallel

    @property
    def row_slice(self) -> RowSlice:
        return RowSlice(self.rank % self.sequence_parallel, self.sequence_parallel)

    @property
    def counts(self) -> bool:
        """Whether this rank's sums are added up: all that share rows have the same."""
        return self.rank % self.sequence_parallel == 0

    @property
    def torch_device(self) -> torch.device:
        import torch

        return torch.device(self.device)

    def peak_memory_gib(self) -> float:
        """Peak memory of the device, in GiB; of this process where there is none."""
        import torch

        if self.torch_device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.torch_device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
