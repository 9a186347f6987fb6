"""The most bytes that tensors of one worker ever take, by the allocator's own account, over two real steps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mixdpo_ray.training.batch import PairBatch, TokenRows, build_batch
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.packed_rows import ModelInput
from mixdpo_ray.training.row_slices import WHOLE, RowSlice
from mixdpo_ray.training.settings import DeepSpeedSettings, ModelSettings, TrainSettings
from mixdpo_ray.training.world import World


def full_batch(pairs: int, length: int) -> PairBatch:
    """Every answer as long as it may be, half of it prompt."""
    rows, half = 2 * pairs, length // 2
    ids = torch.randint(0, 500, (rows, length))
    places = torch.arange(rows)[:, None] * length + half - 1 + torch.arange(half)
    return PairBatch(
        groups=(ModelInput(ids),),
        predictors=places.flatten(),
        targets=ids[:, half:].flatten(),
        slots=torch.arange(rows * half),
        lengths=torch.full((rows,), float(half)),
        longest=half,
        easy=pairs,
        hard=0,
        margin=torch.ones(pairs),
        ref_chosen=None,
        ref_rejected=None,
        weight=1.0,
    )


def full_row(pairs: int, length: int, row_slice: RowSlice = WHOLE) -> PairBatch:
    """The same pairs in a packed row, their prompts once; or a slice of it."""
    half = length // 2
    ids = pa.FixedSizeListArray.from_arrays(pa.array(np.random.default_rng(0).integers(0, 500, pairs * half)), half)
    columns = {f"{name}_ids": ids.cast(pa.list_(pa.int32())) for name in ("prompt", "chosen", "rejected")}
    positions, easy = np.arange(pairs), np.zeros(pairs, np.bool_)
    tokens = TokenRows.of(pa.table({**columns, "margin": np.ones(pairs)}), positions)
    return build_batch(
        tokens, positions, easy, None, weight=1, padding=0, device=torch.device("cpu"), rows="packed",
        row_slice=row_slice,
    )  # fmt: skip


def peak_bytes(
    world: World,
    folder: str,
    dtype: str,
    zero_stage: int,
    pairs: int,
    length: int,
    packed: bool = False,
    train: TrainSettings | None = None,
    lora: dict[str, Any] | None = None,
    ranks: int = 1,
) -> int:
    """`ranks`: that share each row, which is packed then."""
    from torch.profiler import ProfilerActivity, profile

    world = replace(world, sequence_parallel=ranks)
    batch = full_row(pairs, length, world.row_slice) if packed else full_batch(pairs, length)
    train = train or TrainSettings(per_device_train_batch_size=pairs)
    model = ModelSettings.model_validate({"path": folder, "dtype": dtype, "packing": packed, "lora": lora})
    settings = DeepSpeedSettings.model_validate({"zero_stage": zero_stage})
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        policy = make_policy(model, train, settings, world, 0)
        for _ in range(2):
            for _ in range(2):
                easy = policy.logps(batch).easy
                policy.backward((easy.chosen - easy.rejected).sum())
                del easy
            policy.update()
    return peak_of(profiler)


def peak_of(profiler: Any) -> int:
    """By address: gloo's threads free some blocks that the profiler did not see begin, and the other way round."""
    changes, open_events = [], list(profiler.profiler.kineto_results.experimental_event_tree())
    while open_events:
        event = open_events.pop()
        if event.typed[0].name == "Allocation":
            changes.append((event.start_time_ns, event.typed[1].alloc_size, event.typed[1].ptr))
        open_events.extend(event.children)
    blocks: dict[int, int] = {}
    live = peak = 0
    for _, size, address in sorted(changes):
        live -= blocks.pop(address, 0)
        if size > 0:
            live += size
            blocks[address] = size
        peak = max(peak, live)
    return peak
