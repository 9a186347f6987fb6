"""How a model that is only run is loaded: whole on one device, or in shards of which each rank of a group holds one.

In shards (ZeRO-3) every rank gathers a layer's weights when it comes to the layer, together with all others, and lets
go of them behind it. So the ranks must come to the same layers equally often, each with a batch of its own: whoever
runs a model asks its loading how often (`most`, `anywhere`), and how rows may lie. A pass gathers all weights once:
large batches cost little more than small ones, and a model that one device can hold is faster whole.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from mixdpo_ray.training.length_groups import RowKind, row_kind
from mixdpo_ray.training.settings import Dtype
from mixdpo_ray.training.world import World

Model = TypeVar("Model", bound=nn.Module)


class ModelLoading(ABC):
    sharded: ClassVar[bool]
    device: str

    @abstractmethod
    def load(self, make: Callable[[], Model], dtype: Dtype) -> Model:
        """The model that `make` reads in this number format, where it is to be run. Collective in shards."""

    @abstractmethod
    def most(self, count: int) -> int:
        """The largest count that any rank has. Collective in shards."""

    def anywhere(self, condition: bool) -> bool:
        """Whether it holds on any rank. Collective in shards."""
        return bool(self.most(int(condition)))

    def row_kind(self, *, packed: bool) -> RowKind:
        return row_kind(packed=packed, gpu=self.on_gpu, zero_stage=3 if self.sharded else 0)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def torch_device(self) -> torch.device:
        return torch.device(self.device)


@dataclass(frozen=True)
class Whole(ModelLoading):
    """The loading of a process that shares its model with nobody."""

    sharded: ClassVar[bool] = False
    device: str = "cpu"

    def load(self, make: Callable[[], Model], dtype: Dtype) -> Model:
        return make().to(self.torch_device).eval()

    def most(self, count: int) -> int:
        return count


@dataclass(frozen=True)
class InShards(ModelLoading):
    """The loading of the ranks of a world, whose process group there is."""

    sharded: ClassVar[bool] = True
    world: World
    offload: bool = False  # the shards, to the host's memory
    move: Callable[[], None] = lambda: None  # called where all ranks have met

    @property
    def device(self) -> str:  # type: ignore[override]
        return self.world.device

    def load(self, make: Callable[[], Model], dtype: Dtype) -> Model:
        from mixdpo_ray.training.sharded_model import load_in_shards

        return load_in_shards(make, self.world, dtype, offload=self.offload)

    def most(self, count: int) -> int:
        largest = torch.tensor(count, device=self.torch_device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        self.move()
        return int(largest)
