"""Forward and backward passes of one step in padded rows, in packed ones, and in packed ones that share prompts.

python -m tests.measure.packing [--pairs PAIRS.parquet | --lengths 700 150 150] [--rounds 5]

The three take turns on the same pairs, model and micro-batches' sizes, and CPU seconds are counted, so that other work
on the machine hardly matters. Beside each ratio of times stands that of the operations that are run, padding included
(flops.py): time cannot follow any further.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mixdpo_ray.curriculum.shares import Lengths, deal
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.training.batch import PairBatch, TokenRows, build_batch
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.logps import Scorer, pair_logps
from tests.measure.flops import Work
from tests.measure.made_rows import VOCABULARY, made_rows, rows_of
from tests.measure.sizes import Shape
from tests.peer.setup import Row

SHAPE = Shape("small Llama", 8, 384, 6, 2, 1024, VOCABULARY)
ARMS = ("padded", "packed", "packed, prompts shared")


@dataclass(frozen=True)
class Step:
    batches: list[PairBatch]
    loss: Callable[[PairBatch], Tensor]
    work: Work

    def seconds(self, model: LlamaForCausalLM) -> float:
        model.zero_grad()
        began = time.process_time()
        for batch in self.batches:
            torch.autograd.backward(self.loss(batch))
        return time.process_time() - began


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=SHAPE.width, intermediate_size=SHAPE.intermediate,
        num_hidden_layers=SHAPE.layers, num_attention_heads=SHAPE.heads, num_key_value_heads=SHAPE.groups,
        max_position_embeddings=1024,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def step_of(arm: str, scorer: Scorer, rows: Sequence[Row], per_device: int) -> Step:
    kind: RowKind = "grouped" if arm == "padded" else "packed"
    apart = arm == "packed"  # every answer as a hard pair's chosen one: its prompt is its own
    lengths = Lengths(
        *(np.array([len(row[f"{name}_ids"]) for row in rows]) for name in ("prompt", "chosen", "rejected"))
    )
    (share,) = deal(lengths, np.zeros(len(rows), np.bool_), 1, per_device, packed=kind == "packed")
    batches = [_batch([rows[row] for row in micro.rows], kind, apart=apart) for micro in share]

    def loss(batch: PairBatch) -> Tensor:
        logps = pair_logps(scorer, batch)
        if not apart:
            return DPO(beta=0.1).losses(_against_zero(logps.easy)).sum()
        chosen, rejected = logps.hard_chosen.chunk(2)
        return -(0.1 * (chosen - rejected)).sigmoid().log().sum()

    return Step(batches, loss, Work(*map(sum, zip(*map(_work, batches), strict=True))))


def _against_zero(pairs: PairLogps) -> PairLogps:
    none = torch.zeros_like(pairs.chosen)
    return PairLogps(pairs.chosen, pairs.rejected, pairs.chosen_length, pairs.rejected_length, pairs.margin, none, none)


def _batch(rows: list[Row], kind: RowKind, *, apart: bool) -> PairBatch:
    columns = {name: [row[name] for row in rows] for name in ("prompt_ids", "chosen_ids", "rejected_ids")}
    if apart:
        columns = {
            "prompt_ids": columns["prompt_ids"] * 2,
            "chosen_ids": columns["chosen_ids"] + columns["rejected_ids"],
            "rejected_ids": columns["rejected_ids"] * 2,
        }
    count = len(columns["prompt_ids"])
    table = pa.table({name: pa.array(lists, pa.list_(pa.int32())) for name, lists in columns.items()})
    positions = np.arange(count)
    return build_batch(
        TokenRows.of(table.append_column("margin", pa.array(np.ones(count))), positions), positions,
        np.full(count, apart), None, weight=1, padding=0, device=torch.device("cpu"), rows=kind,
    )  # fmt: skip


def _work(batch: PairBatch) -> Iterator[int]:
    """Places, completion tokens, and pairs of a query and a key."""
    yield sum(row.ids.numel() for row in batch.groups)
    yield len(batch.targets)
    visible = 0
    for row in batch.groups:
        if row.layout is None:
            count, width = row.ids.shape
            visible += count * width * (width + 1) // 2
        else:
            visible += sum(
                span.queries * (span.keys - span.queries) + span.queries * (span.queries + 1) // 2
                for span in row.layout.spans
            )
    yield visible


def _rows(options: argparse.Namespace) -> list[Row]:
    if options.pairs:
        return rows_of(options.pairs, options.global_batch)
    if not options.lengths:
        return made_rows(options.global_batch)
    draw, names = np.random.default_rng(0), ("prompt_ids", "chosen_ids", "rejected_ids")
    return [
        {
            name: draw.integers(3, VOCABULARY, length).tolist()
            for name, length in zip(names, options.lengths, strict=True)
        }
        for _ in range(options.global_batch)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="a parquet file with prompt, chosen and rejected")
    parser.add_argument("--lengths", type=int, nargs=3, help="of every prompt, chosen and rejected answer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--per-device", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = _rows(options)
    model = small_llama()
    scorer = Scorer(model, packing=True)
    steps = {arm: step_of(arm, scorer, rows, options.per_device) for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds + 1):
        for arm, step in steps.items():
            taken = step.seconds(model)
            if number:  # the first round warms up
                seconds[arm].append(taken)
    usual, most = statistics.median(seconds["padded"]), steps["padded"].work.flops(SHAPE)
    for arm, step in steps.items():
        median, spread = statistics.median(seconds[arm]), f"{min(seconds[arm]):.2f}-{max(seconds[arm]):.2f}"
        ceiling = most / step.work.flops(SHAPE)
        print(
            f"{arm:24} {median:6.2f} s ({spread}), {usual / median:.2f}x of a ceiling of {ceiling:.2f}x; "
            f"{step.work.tokens} places"
        )


if __name__ == "__main__":
    main()
