"""Sequence parallelism: the ranks that run a row together, each a slice of its positions, by DeepSpeed's Ulysses.

Layers, norms and the vocabulary see a rank's own slice. For attention ranks exchange positions for heads, so that each
sees the whole row with its share of the heads: packed rows and shared prompts are what they are on one rank. Log-probs
are summed over the ranks, which all compute the loss of all pairs.

Activations fall with the number of ranks, weights and what ZeRO shards do not: it is shared by the whole world either
way. The price is four exchanges a layer and fewer rows at a time; prefer it only where one row does not fit a device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.world import World

HEADS, POSITIONS = 2, 1  # dimensions of what is exchanged: [1, positions, heads, width]


class SequenceRanks:
    """Made by every rank of a world at the same time."""

    def __init__(self, world: World):
        from deepspeed.sequence.layer import DistributedAttention

        self.count = world.sequence_parallel
        self.group = _neighbours(dist.group.WORLD, self.count)
        self._exchanged = DistributedAttention(_of_whole_row, self.group, HEADS, POSITIONS)

    def attend(
        self,
        attention: Callable[[Tensor, Tensor, Tensor], Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        tokens: int,
    ) -> Tensor:
        """[1, heads, width of the slice, head] -> [1, width of the slice, heads, head].

        `attention`: the same of a whole row, which has so many `tokens`, with some of the heads.
        """
        if key.shape[1] < self.count:  # each key's head is needed on several ranks
            key, value = (tensor.repeat_interleave(self.count // key.shape[1], 1) for tensor in (key, value))
        states = (tensor.transpose(1, 2) for tensor in (query, key, value))
        out: Tensor = self._exchanged(*states, 0, None, attention, tokens)
        return out

    def summed(self, values: Tensor) -> Tensor:
        """The sum of all ranks' values, on each."""
        total: Tensor = _Summed.apply(values, self.group)  # type: ignore[no-untyped-call]
        return total


def _of_whole_row(
    query: Tensor, key: Tensor, value: Tensor, attention: Callable[[Tensor, Tensor, Tensor], Tensor], tokens: int
) -> Tensor:
    """[1, positions, heads, head]; nobody sees the positions behind the row's end, nor do they see anything."""
    own = (tensor[:, :tokens].transpose(1, 2) for tensor in (query, key, value))
    return functional.pad(attention(*own), (0, 0, 0, 0, 0, query.shape[1] - tokens))


class _Summed(torch.autograd.Function):
    """Every rank computes the whole loss from the sum, so what it added gets the loss's gradient once: its own."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        total = values.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@cache
def _neighbours(everyone: dist.ProcessGroup, count: int) -> dist.ProcessGroup:
    """Collective, once in a process's life: a standing worker trains again and again."""
    own, _ = dist.new_subgroups(count, group=everyone)  # type: ignore[no-untyped-call]
    assert isinstance(own, dist.ProcessGroup)
    return own


def why_not_exchanged(heads: int, key_heads: int, ranks: int) -> str | None:
    """The reason why attention cannot be shared out, if any."""
    if heads % ranks == 0 and (key_heads % ranks == 0 or ranks % key_heads == 0):
        return None
    few = [count for count in range(2, ranks) if why_not_exchanged(heads, key_heads, count) is None]
    found = f"it has {heads} attention heads and {key_heads} of keys, which {ranks} ranks cannot share alike"
    return f"{found}; {few[-1]} can" if few else found


def refuse_unshared(heads: tuple[int, int], why_padded: str | None, ranks: int) -> None:
    """An error where a model's rows cannot be shared. `heads`: of queries and of keys."""
    if (reason := why_padded or why_not_exchanged(*heads, ranks)) is not None:
        raise ModelError(f"deepspeed.sequence_parallel {ranks}: {reason}")
