"""The ways in which sequences of the same pairs can lie in a forward pass, as micro-batches with a loss.

padded    sequences of like length together
packed    one row without padding, the prompt in it with each answer
shared    one row without padding, the prompt in it once for both answers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from mixdpo_ray.curriculum.shares import Lengths, deal
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.training.batch import PairBatch, TokenRows, build_batch
from mixdpo_ray.training.logps import MicroLogps
from tests.measure.flops import Work
from tests.peer.setup import Row

PADDED, PACKED, SHARED = ARMS = ("padded", "packed", "shared")
BETA = 0.1
COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


@dataclass(frozen=True)
class Micro:
    """One micro-batch, what is run in it, and what of that is no padding."""

    batch: PairBatch
    apart: bool
    places: int  # tokens of the rows, padding included
    run: Work
    useful: Work
    sequence_tokens: int  # of both sequences of every pair, however they are run

    def loss(self, logps: MicroLogps) -> Tensor:
        """DPO against a reference of zero: the same number for every arm."""
        if not self.apart:
            pairs = logps.easy
            none = torch.zeros_like(pairs.chosen)
            lengths = (pairs.chosen_length, pairs.rejected_length)
            return (
                DPO(beta=BETA).losses(PairLogps(pairs.chosen, pairs.rejected, *lengths, pairs.margin, none, none)).sum()
            )
        chosen, rejected = logps.hard_chosen.chunk(2)
        return -(BETA * (chosen - rejected)).sigmoid().log().sum()


def micro_batches(arm: str, rows: Sequence[Row], per_device: int, device: str = "cpu") -> list[Micro]:
    """All pairs as one window, cut as training cuts it, on the device."""
    lengths = Lengths(*(np.array([len(row[name]) for row in rows]) for name in COLUMNS))
    (share,) = deal(lengths, np.zeros(len(rows), np.bool_), 1, per_device, packed=arm != PADDED)
    return [_micro(arm, [rows[row] for row in micro.rows], device) for micro in share]


def _micro(arm: str, rows: list[Row], device: str) -> Micro:
    apart = arm == PACKED  # every answer as a hard pair's chosen one, whose prompt is its own
    columns = {name: [row[name] for row in rows] for name in COLUMNS}
    if apart:
        prompts, chosen, rejected = columns.values()
        columns = dict(zip(COLUMNS, (prompts * 2, chosen + rejected, rejected * 2), strict=True))
    count = len(columns["prompt_ids"])
    table = pa.table({name: pa.array(lists, pa.list_(pa.int32())) for name, lists in columns.items()})
    positions = np.arange(count)
    batch = build_batch(
        TokenRows.of(table.append_column("margin", pa.array(np.ones(count))), positions), positions,
        np.full(count, apart), None, weight=1, padding=0, device=torch.device(device),
        rows="grouped" if arm == PADDED else "packed",
    )  # fmt: skip
    places = sum(row.ids.numel() for row in batch.groups)
    useful = Work.of(rows, shared=arm == SHARED)
    return Micro(batch, apart, places, _run(batch, useful) if arm == PADDED else useful, useful, Work.of(rows).tokens)


def _run(batch: PairBatch, useful: Work) -> Work:
    """Of padded rows: every place sees those before it."""
    shapes = [row.ids.shape for row in batch.groups]
    places = sum(count * width for count, width in shapes)
    return Work(places, useful.completions, sum(count * width * (width + 1) // 2 for count, width in shapes))
