"""TRL's DPOTrainer and this project on the same ids, weights, batches and learning rate, each in its own process.

Both keep float32 weights for the optimizer and compute in bfloat16: TRL by autocast, as it does by default, we by
DeepSpeed. Losses of every step are compared first; where they differ, no ratio is given.
"""

from __future__ import annotations

from tests.measure.inputs import MODEL, job_of, setup_of
from tests.measure.memory import peak_gib, reset_peak
from tests.measure.phases import Measurement, Report
from tests.measure.trainings import ZERO, report_training, step_rates
from tests.peer.setup import Setup

OURS, LARGER_ROWS, LOOP, PRECOMPUTED = "ours beside TRL", "ours larger rows", "TRL", "TRL precomputed"
BEST = {"packing": True, "kernels": "liger"}  # settings of the model
TOLERANCE = 2e-2


def run_ours(measurement: Measurement, report: Report, rows: int = 1) -> None:
    """`rows`: how many times as many pairs go through the model at once as TRL's."""
    setup = _setup(measurement, rows)
    what = f"{setup.global_batch} pairs a step, {setup.per_device} at a time"
    job = job_of(setup, f"beside-trl-{rows}", deepspeed={"zero_stage": ZERO}, model=BEST)
    report_training(measurement, report, setup, what, job)


def run_theirs(measurement: Measurement, report: Report, precompute: bool) -> None:
    import numpy as np

    from tests.peer.peer import run_dpo

    setup = _setup(measurement)
    reset_peak(measurement.device)
    record = run_dpo(setup, measurement.work / "trl", precompute=precompute)
    found = step_rates(measurement, setup, np.diff(record.ends).tolist())
    gap = _gap(measurement.last(OURS, "losses"), record.losses)
    ours = {name: measurement.last(name, "us_per_token") for name in (OURS, LARGER_ROWS)}
    row = {"losses": record.losses, "loss_gap": gap, **found, "peak_gib": peak_gib(measurement.device)}
    if gap is None:
        says = "no ratio: ours was not measured"
    elif gap > TOLERANCE:
        says = f"no ratio: losses differ by {gap:.2g}"
    else:
        ratios = {name: found["us_per_token"] / time for name, time in ours.items() if time is not None}
        row["ratios"] = ratios
        times = ", ".join(f"{ratio:.2f} times {name}" for name, ratio in ratios.items())
        says = f"{times}; losses differ by {gap:.1e} at most"
    where = "its references computed before" if precompute else "its reference in the loop"
    report(what=where, says=says, **row)


def _setup(measurement: Measurement, rows: int = 1) -> Setup:
    sizes = measurement.sizes
    return setup_of(measurement, MODEL, sizes.peer_batch, rows * sizes.peer_per_device, sizes.peer_steps)


def _gap(ours: list[float] | None, theirs: list[float]) -> float | None:
    return None if ours is None else max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
