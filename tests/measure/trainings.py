"""Whole training runs of some steps: ZeRO's stages, gradient checkpointing, LoRA; each differs from the first by one.

On one worker ZeRO shards nothing: what is seen is that it runs, what it costs, and whether its memory is as foreseen.
"""

from __future__ import annotations

import statistics
from typing import Any

from mixdpo_ray.training.job import TrainingJob
from tests.measure.flops import Work
from tests.measure.inputs import MODEL, job_of, setup_of, world_of
from tests.measure.memory import estimate_of, peak_gib, reset_peak
from tests.measure.phases import Measurement, Report
from tests.measure.rates import rates
from tests.measure.timed import timed_training
from tests.peer.setup import Row, Setup

ZERO = 2  # the default of recipes


def run(measurement: Measurement, report: Report, what: str, **settings: Any) -> None:
    """`settings`: parts of the job that are changed, each by a dictionary."""
    sizes = measurement.sizes
    setup = setup_of(measurement, MODEL, sizes.batch, sizes.per_device, sizes.steps)
    report_training(measurement, report, setup, what, job_of(setup, what.replace(" ", "-"), **settings))


def report_training(measurement: Measurement, report: Report, setup: Setup, what: str, job: TrainingJob) -> None:
    """One row: what a run of the job takes, its losses, and the share of a step that is neither of its passes."""
    reset_peak(measurement.device)
    trained = timed_training(job, world_of(measurement))
    losses, outside = trained["losses"], trained["outside"]
    report(
        what=what,
        **step_rates(measurement, setup, trained["seconds"], shared=job.model.packing is True),
        peak_gib=peak_gib(measurement.device),
        estimate_gib=estimate_of(job),
        losses=losses,
        outside=outside,
        says=f"loss {losses[0]:.5f} to {losses[-1]:.5f}; outside forward, backward, optimizer {outside:.1%}; "
        f"padding {trained['padding']:.0%}",
    )


def step_rates(measurement: Measurement, setup: Setup, seconds: list[float], *, shared: bool = False) -> dict[str, Any]:
    """Of all steps but the first, which `seconds` leaves out."""
    later: list[Row] = list(setup.rows[setup.global_batch : setup.global_batch * (len(seconds) + 1)])
    work, tokens = Work.of(later, shared=shared), Work.of(later).tokens
    found = rates(measurement, measurement.sizes.model, work, sum(seconds), tokens)
    return {**found, "seconds_per_step": statistics.median(seconds)}
