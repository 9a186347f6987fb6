"""Micro-steps, forward and backward, of each way in which rows can lie (arms.py) and of each kind of kernel.

The engine is the one of training, with ZeRO-2 on one worker. What is timed runs through all of a window's lengths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mixdpo_ray.training.engine import Policy, make_policy
from mixdpo_ray.training.process_group import join_group
from mixdpo_ray.training.selected_logps import selected_logps
from mixdpo_ray.training.settings import Kernels, TrainSettings
from tests.measure.arms import ARMS, SHARED, Micro, micro_batches
from tests.measure.flops import Work
from tests.measure.inputs import LARGER, MODEL, job_of, rows_of, setup_of, shape_of, world_of, write
from tests.measure.memory import GIB, estimate_of, peak_gib, reset_peak
from tests.measure.phases import Measurement, Report
from tests.measure.rates import rates
from tests.measure.timing import seconds_of
from tests.measure.trainings import ZERO

SPARE_GIB = 6  # of the card, for what no estimate knows: CUDA itself, and room lost between tensors


@dataclass(frozen=True)
class Arm:
    """One way to run a micro-step."""

    name: str
    rows: str = SHARED
    fused: bool = True  # log-probs, on a GPU
    kernels: Kernels = "none"
    chunk_tokens: int = TrainSettings().logp_chunk_tokens

    def scored(self, logits: Tensor, targets: Tensor) -> Tensor:
        return selected_logps(logits.float(), targets)


MICRO_STEPS = (
    *(Arm(rows, rows) for rows in ARMS),
    Arm("plain log-probs", fused=False),
    Arm("liger", kernels="liger"),
    Arm("liger one chunk", kernels="liger", chunk_tokens=1 << 30),
)
BY_NAME = {arm.name: arm for arm in MICRO_STEPS}


def run(measurement: Measurement, report: Report, arm: Arm) -> None:
    """Ever more pairs per micro-step, so that running out of memory costs only what would follow."""
    sizes = measurement.sizes
    policy = _policy(measurement, MODEL, arm)
    for number, per_device in enumerate(sizes.micro_batches):
        try:
            step = _measured(measurement, report, policy, MODEL, arm, per_device)
        except torch.OutOfMemoryError:
            report(what=f"{per_device} pairs", says="do not fit")
            return
        if number == len(sizes.micro_batches) // 2:
            _profile(measurement, arm.name, step)


def run_larger(measurement: Measurement, report: Report) -> None:
    """The arm and the size that were fastest so far, with the larger model."""
    timed = [result for result in measurement.earlier if "us_per_token" in result and "arm" in result]
    if not timed:
        raise ValueError("no arm has been timed before, so that none is the best")
    best = min(timed, key=lambda result: float(result["us_per_token"]))
    write(measurement, LARGER)
    arm = BY_NAME[best["arm"]]
    policy = _policy(measurement, LARGER, arm)
    _measured(measurement, report, policy, LARGER, arm, _fitting(measurement, best["per_device"]))


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


def _policy(measurement: Measurement, name: str, arm: Arm) -> Policy:
    world = world_of(measurement)
    join_group(world)
    setup = setup_of(measurement, name, 1, 1, 1)
    model = {"packing": True, "kernels": arm.kernels}
    job = job_of(setup, "none", deepspeed={"zero_stage": ZERO}, model=model)
    if measurement.on_gpu and not arm.fused:
        from mixdpo_ray.training import fused_logps

        vars(fused_logps)["fused_logps"] = arm.scored
    return make_policy(job.model, job.train, job.deepspeed, world, padding=0)


def _measured(
    measurement: Measurement, report: Report, policy: Policy, name: str, arm: Arm, per_device: int
) -> Callable[[], None]:
    """Reports a row; returns one of its micro-steps."""
    sizes, device = measurement.sizes, measurement.device
    micros = micro_batches(arm.rows, rows_of(measurement, name)[: sizes.micro_pairs], per_device, device)
    chosen = [micros[int(at)] for at in np.linspace(0, len(micros) - 1, sizes.timed).round()]
    steps = [partial(_micro_step, policy, micro, arm.chunk_tokens) for micro in [*micros[:1] * sizes.warm_ups, *chosen]]
    reset_peak(device)
    seconds = sum(seconds_of(steps, device)[sizes.warm_ups :])
    places, useful = [micro.places for micro in chosen], sum((micro.useful for micro in chosen), Work(0, 0, 0))
    tokens = sum(micro.sequence_tokens for micro in chosen)
    report(
        what=f"{shape_of(measurement, name).name}, {arm.name}: {per_device} pairs, {np.mean(places):.0f} places",
        arm=arm.name,
        per_device=per_device,
        places=places,
        **rates(measurement, shape_of(measurement, name), useful, seconds, tokens),
        peak_gib=peak_gib(device),
        estimate_gib=_estimate(measurement, name, per_device),
        says=f"padding {1 - useful.tokens / sum(places):.0%}; the largest has {max(places) / np.mean(places):.2f} "
        "times the mean",
    )
    return steps[-1]


def _micro_step(policy: Policy, micro: Micro, chunk_tokens: int) -> None:
    logps = policy.logps(micro.batch, -(-len(micro.batch.targets) // chunk_tokens))
    policy.backward(micro.loss(logps))


def _profile(measurement: Measurement, arm: str, step: Callable[[], None]) -> None:
    """The fifteen operations that take longest of one micro-step."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if measurement.on_gpu else [])]
    with profile(activities=activities) as profiler:
        seconds_of([step], measurement.device)
    events: Any = profiler.key_averages()
    by = "self_device_time_total" if measurement.on_gpu else "self_cpu_time_total"
    Path(measurement.out / f"profile-{arm.replace(' ', '-')}.txt").write_text(events.table(sort_by=by, row_limit=15))
