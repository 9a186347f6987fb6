"""The first training run again, through Ray: one worker of TorchTrainer, placed and watched as every run is."""

from __future__ import annotations

import json
import time
from pathlib import Path

from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_workers import fit
from mixdpo_ray.recipe.cluster import ClusterSettings
from tests.measure.against_trl import BEST
from tests.measure.inputs import MODEL, job_of, setup_of
from tests.measure.phases import Measurement, Report
from tests.measure.trainings import ZERO

TOLERANCE = 1e-2  # on a GPU kernels may add in another order


def run(measurement: Measurement, report: Report, beside: str) -> None:
    """`beside`: the phase that trained the same without Ray."""
    sizes = measurement.sizes
    setup = setup_of(measurement, MODEL, sizes.batch, sizes.per_device, sizes.steps)
    job = job_of(setup, "through-ray", deepspeed={"zero_stage": ZERO}, model=BEST)
    cluster = ClusterSettings(num_workers=1, use_gpu=measurement.on_gpu, max_failures=0)
    began = time.monotonic()
    with connected(cluster):
        started = time.monotonic() - began
        fit(cluster, job, claim_run(job.run))
    lines = (json.loads(line) for line in (Path(job.run) / "metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    alone = measurement.last(beside, "losses")
    gap = None if alone is None else max(abs(one - other) for one, other in zip(losses, alone, strict=True))
    compared = "nothing to compare with" if gap is None else f"losses differ from those without by {gap:.1e}"
    report(
        what=f"one worker{' with a GPU' if measurement.on_gpu else ''}",
        losses=losses,
        loss_gap=gap,
        wrong=[f"losses differ by {gap:.2g}"] if gap is not None and gap > TOLERANCE else [],
        says=f"Ray up after {started:.0f} s, all after {time.monotonic() - began:.0f} s; {compared}",
    )
