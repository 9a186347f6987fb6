"""TRL's DPOTrainer and this project on the same ids, weights, batches and learning rate, each in its own process.

Both keep float32 weights for the optimizer and compute in bfloat16: TRL by autocast, as it does by default, we by
DeepSpeed. Losses of every step are compared first; where they differ, no ratio is given.
"""

from __future__ import annotations

from mixdpo_ray.training.job import TrainingJob
from tests.measure.inputs import MODEL, job_of, setup_of
from tests.measure.memory import peak_gib, reset_peak
from tests.measure.phases import Measurement, Report
from tests.measure.trainings import ZERO, report_training, step_rates
from tests.peer.setup import Setup

OURS, LOOP, PRECOMPUTED = "ours beside TRL", "TRL", "TRL precomputed"
TOLERANCE = 2e-2


def run_ours(measurement: Measurement, report: Report) -> None:
    setup = _setup(measurement)
    what = f"{setup.global_batch} pairs a step, {setup.per_device} at a time"
    report_training(measurement, report, setup, what, _job(setup))


def _job(setup: Setup) -> TrainingJob:
    return job_of(setup, "beside-trl", deepspeed={"zero_stage": ZERO}, model={"packing": True})


def run_theirs(measurement: Measurement, report: Report, precompute: bool) -> None:
    import numpy as np

    from tests.peer.peer import run_dpo

    setup = _setup(measurement)
    reset_peak(measurement.device)
    record = run_dpo(setup, measurement.work / "trl", precompute=precompute)
    found = step_rates(measurement, setup, np.diff(record.ends).tolist())
    ours, gap = measurement.last(OURS, "us_per_token"), _gap(measurement.last(OURS, "losses"), record.losses)
    row = {"losses": record.losses, "loss_gap": gap, **found, "peak_gib": peak_gib(measurement.device)}
    if gap is None:
        says = "no ratio: ours was not measured"
    elif gap > TOLERANCE:
        says = f"no ratio: losses differ by {gap:.2g}"
    else:
        row["ratio"] = found["us_per_token"] / ours
        says = f"{row['ratio']:.2f} times our time; losses differ by {gap:.1e} at most"
    where = "its references computed before" if precompute else "its reference in the loop"
    report(what=where, says=says, **row)


def _setup(measurement: Measurement) -> Setup:
    sizes = measurement.sizes
    return setup_of(measurement, MODEL, sizes.peer_batch, sizes.peer_per_device, sizes.peer_steps)


def _gap(ours: list[float] | None, theirs: list[float]) -> float | None:
    return None if ours is None else max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
