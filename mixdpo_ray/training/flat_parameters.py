"""Which part of which weight lies where in the flat parameters that the engine gives to an optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor

from mixdpo_ray.training.muon import Piece


def flat_matrices(engine: Any) -> list[tuple[Tensor, list[Piece]]]:
    """The optimizer's flat parameters, each with this rank's pieces of what it holds; none without ZeRO."""
    zero, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 3:
        return [
            (flat, _sharded_pieces(group, zero.dp_process_group))
            for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True)
        ]
    if stage == 0:
        return []
    half = hasattr(zero, "bf16_groups")  # stage 1 with bfloat16 is another class
    flats = zero.fp32_groups_flat_partition if half else zero.single_partition_of_fp32_groups
    groups = zip(flats, zero.bf16_groups if half else zero.bit16_groups, strict=True)
    return [(flat, [_linked_piece(parameter) for parameter in group]) for flat, group in groups]


def _sharded_pieces(group: Sequence[Any], ranks: Any) -> list[Piece]:
    """Every rank has as much of each, padded at the end."""
    rank, start, pieces = dist.get_rank(ranks), 0, []
    for parameter in group:
        share = parameter.partition_numel()
        held = max(0, min(share, parameter.ds_numel - rank * share))
        pieces.append(Piece(tuple(parameter.ds_shape), start, rank * share, held))
        start += share
    return pieces


def _linked_piece(parameter: Any) -> Piece:
    shape, link = tuple(parameter.shape), parameter._hp_mapping
    if link is None:
        return Piece(shape, 0, 0, 0)
    return Piece(shape, link.hp_fragment_address.start, link.lp_fragment_address.start, link.lp_fragment_address.numel)
