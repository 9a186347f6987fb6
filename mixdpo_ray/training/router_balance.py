"""The auxiliary loss of mixture-of-experts models, which keeps their routers from sending all tokens to few experts.

    c E sum_e f_e p_e    f_e: how often a token has expert e among its k; p_e: the mean probability that routers give e

c is `router_aux_loss_coef` of the model's configuration; 0, or none, leaves the loss out. It is transformers' formula,
over all layers, and over all tokens of the step's window instead of a micro-batch: f and p are divided by counts of the
whole window, so that any split into workers and micro-batches gives the same gradient, and a prompt counts once for
each of its answers, whether rows are packed or padded. f has no gradient, but that of p depends on it: with more than
one micro-batch per worker a forward pass without gradient, and without dropout, finds it first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from mixdpo_ray.training.packed_rows import ModelInput
from mixdpo_ray.training.world import World

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel


@dataclass(frozen=True)
class RoutedTokens:
    """What the routers did with a micro-batch, over its tokens and all layers."""

    chosen: Tensor  # [experts] int64: how many tokens have the expert among their k
    probability: Tensor  # [experts] summed; the only part with a gradient


@dataclass(frozen=True)
class RouterBalance:
    coefficient: float
    experts_per_token: int

    def routed(self, layers: Iterable[tuple[Tensor, ...]], rows: Iterable[ModelInput]) -> RoutedTokens:
        """`layers`: of each row, the router's logits [tokens, experts] of every layer."""
        found = [self._row(logits, row) for logits, row in zip(layers, rows, strict=True)]
        chosen, probability = (torch.stack(part).sum(0) for part in zip(*found, strict=True))
        return RoutedTokens(chosen, probability)

    def loss(self, routed: RoutedTokens, chosen: Tensor) -> Tensor:
        """This micro-batch's part of the window's loss, without its coefficient. `chosen`: of the whole window."""
        tokens = chosen.sum() / self.experts_per_token  # of all layers
        return len(chosen) * (chosen / tokens * routed.probability).sum() / tokens

    def _row(self, layers: tuple[Tensor, ...], row: ModelInput) -> tuple[Tensor, Tensor]:
        counts = token_counts(row)
        repeated = counts.repeat_interleave(self.experts_per_token)
        chosen = counts.new_zeros(layers[0].shape[-1])
        probability = layers[0].new_zeros(len(chosen), dtype=torch.float32)
        for logits in layers:
            shares = logits.flatten(0, -2).float().softmax(-1)
            chosen = chosen.scatter_add(0, shares.topk(self.experts_per_token, -1).indices.flatten(), repeated)
            probability = probability + counts.float() @ shares
        return chosen, probability


def router_balance(model: PreTrainedModel) -> RouterBalance | None:
    """None where a model has no routers, or its configuration gives their loss no weight."""
    config = model.config.get_text_config()
    coefficient = getattr(config, "router_aux_loss_coef", None)
    if not coefficient or "router_logits" not in (getattr(model, "_can_record_outputs", None) or {}):
        return None
    return RouterBalance(float(coefficient), config.num_experts_per_tok)


def token_counts(row: ModelInput) -> Tensor:
    """[tokens] of how many answers' sequences a token is part of: a shared prompt of two, padding of none."""
    if row.layout is not None:
        return row.row_slice.cut(torch.bincount(row.layout.key_indices, minlength=row.layout.tokens)[None])[0]
    assert row.lengths is not None
    return (torch.arange(row.ids.shape[1], device=row.ids.device) < row.lengths[:, None]).flatten().long()


def window_choices(chosen: Sequence[tuple[Tensor, float]], world: World) -> Tensor:
    """Collective. [experts] over all ranks. `chosen`: of each micro-batch, with its weight: a filler adds nothing."""
    summed = torch.stack([int(weight) * one for one, weight in chosen]).sum(0)
    if world.size > 1:
        dist.all_reduce(summed)
    return summed
