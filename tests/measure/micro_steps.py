"""Micro-steps, forward and backward, of each way in which sequences can lie: time, share of the ceilings, memory.

The engine is the one of training, with ZeRO-2 on one worker. What is timed runs through all of a window's lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixdpo_ray.curriculum.shares import deal
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.batch import PairBatch, References, TokenRows, build_batch
from mixdpo_ray.training.engine import Policy, make_policy
from mixdpo_ray.training.process_group import join_group
from mixdpo_ray.training.settings import TrainSettings
from mixdpo_ray.training.window_shares import index_lengths
from tests.measure.flops import Work
from tests.measure.inputs import BETA, LARGER, MODEL, job_of, rows_of, setup_of, shape_of, world_of, write
from tests.measure.memory import GIB, estimate_of, padded_tokens_of, peak_gib, reset_peak
from tests.measure.phases import Measurement, Report
from tests.measure.rates import rates
from tests.measure.timing import seconds_of
from tests.measure.trainings import ZERO

CHUNK_TOKENS = TrainSettings().logp_chunk_tokens
SPARE_GIB = 6  # of the card, for what no estimate knows: CUDA itself, and room lost between tensors
PADDED = "padded"  # sequences of like length together, as training does it


@dataclass(frozen=True)
class Cut:
    """One micro-batch, and what it is worth."""

    batch: PairBatch
    chunks: int
    work: Work


def run(measurement: Measurement, report: Report, arm: str) -> None:
    """Ever more pairs per micro-step, so that running out of memory costs only what would follow."""
    sizes = measurement.sizes
    policy = _policy(measurement, MODEL)
    for number, per_device in enumerate(sizes.micro_batches):
        step = _measured(measurement, report, policy, MODEL, arm, per_device)
        if number == len(sizes.micro_batches) // 2:
            _profile(measurement, arm, step)


def run_larger(measurement: Measurement, report: Report) -> None:
    """The arm and the size that were fastest so far, with the larger model."""
    timed = [result for result in measurement.earlier if "us_per_token" in result and "arm" in result]
    if not timed:
        raise ValueError("no arm has been timed before, so that none is the best")
    best = min(timed, key=lambda result: float(result["us_per_token"]))
    write(measurement, LARGER)
    policy = _policy(measurement, LARGER)
    _measured(measurement, report, policy, LARGER, best["arm"], _fitting(measurement, best["per_device"]))


def _fitting(measurement: Measurement, per_device: int) -> int:
    """Pairs that the card should have room for, by the project's own estimate."""
    if measurement.on_gpu:
        room = torch.cuda.get_device_properties(measurement.device).total_memory / GIB - SPARE_GIB
        while per_device > 1 and _estimate(measurement, LARGER, per_device) > room:
            per_device //= 2
    return per_device


def _estimate(measurement: Measurement, name: str, per_device: int) -> float:
    """GiB, with the largest of the micro-batches."""
    setup = setup_of(measurement, name, measurement.sizes.micro_pairs, per_device, 1)
    return estimate_of(job_of(setup, "none", deepspeed={"zero_stage": ZERO}))


def _policy(measurement: Measurement, name: str) -> Policy:
    world = world_of(measurement)
    join_group(world)
    job = job_of(setup_of(measurement, name, 1, 1, 1), "none", deepspeed={"zero_stage": ZERO})
    return make_policy(job.model, job.train, job.deepspeed, world, padding=0)


def _measured(
    measurement: Measurement, report: Report, policy: Policy, name: str, arm: str, per_device: int
) -> Callable[[], None]:
    """Reports a row; returns one of its micro-steps."""
    sizes, device = measurement.sizes, measurement.device
    cuts = list(_cuts(measurement, name, per_device))
    chosen = [cuts[int(at)] for at in np.linspace(0, len(cuts) - 1, sizes.timed).round()]
    steps = [partial(_micro_step, policy, cut) for cut in [*cuts[:1] * sizes.warm_ups, *chosen]]
    reset_peak(device)
    seconds = sum(seconds_of(steps, device)[sizes.warm_ups :])
    work = Work(*(sum(getattr(cut.work, name) for cut in chosen) for name in ("tokens", "completions", "visible")))
    places = [padded_tokens_of(cut.batch) for cut in chosen]
    report(
        what=f"{shape_of(measurement, name).name}, {arm}: {per_device} pairs, {np.mean(places):.0f} places",
        arm=arm,
        per_device=per_device,
        places=places,
        **rates(measurement, shape_of(measurement, name), work, seconds),
        peak_gib=peak_gib(device),
        estimate_gib=_estimate(measurement, name, per_device),
        says=f"padding {1 - work.tokens / sum(places):.0%}",
    )
    return steps[-1]


def _cuts(measurement: Measurement, name: str, per_device: int) -> Iterator[Cut]:
    """The micro-batches of the first pairs as one window, on the device, longest first."""
    folder, sizes = measurement.work / name, measurement.sizes
    table = PreparedTable.open(str(folder / "table"))
    index, positions = table.index("train"), np.arange(sizes.micro_pairs)
    tokens = TokenRows.of(table.read("train", positions), positions)
    references = References.of(str(folder / "reference"), index)
    rows = rows_of(measurement, name)
    easy = np.zeros(len(positions), np.bool_)
    (share,) = deal(index_lengths(index, positions), easy, 1, per_device)
    for micro in share:
        batch = build_batch(
            tokens,
            positions[micro.rows],
            easy[micro.rows],
            references,
            weight=1.0,
            padding=0,
            device=torch.device(measurement.device),
        )
        yield Cut(batch, -(-len(batch.targets) // CHUNK_TOKENS), Work.of([rows[row] for row in micro.rows]))


def _micro_step(policy: Policy, cut: Cut) -> None:
    logps = policy.logps(cut.batch, cut.chunks)
    loss = DPO(beta=BETA).losses(logps.easy).mean()
    policy.backward(loss)


def _profile(measurement: Measurement, arm: str, step: Callable[[], None]) -> None:
    """The fifteen operations that take longest of one micro-step."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if measurement.on_gpu else [])]
    with profile(activities=activities) as profiler:
        seconds_of([step], measurement.device)
    events: Any = profiler.key_averages()
    by = "self_device_time_total" if measurement.on_gpu else "self_cpu_time_total"
    Path(measurement.out / f"profile-{arm}.txt").write_text(events.table(sort_by=by, row_limit=15))
