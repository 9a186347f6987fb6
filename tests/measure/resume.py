"""A run that is killed and repeated against one that was never killed: the same bits, or how far they are apart.

Every part is a process of its own, as in life. On a GPU some kernels add in an order of their own, unless torch is
asked for deterministic ones; both ways are tried, and at the same time, since the model is small.
"""

from __future__ import annotations

import json
import os
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mixdpo_ray.training.checkpoints import committed_steps
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import CheckpointSettings
from tests.measure.inputs import SHALLOW, job_of, setup_of, world_of
from tests.measure.phases import Measurement, Report
from tests.measure.processes import start
from tests.measure.trainings import ZERO

EVERY = 2  # steps between checkpoints
WAYS = {"plain": False, "deterministic": True}


def run(measurement: Measurement, report: Report) -> None:
    jobs = {(way, part): _job(measurement, f"{part}-{way}") for way in WAYS for part in ("whole", "killed")}
    _together(measurement, [(jobs[way, part], WAYS[way], part == "killed") for way, part in jobs])
    saved = {way: committed_steps(f"{jobs[way, 'killed'].run}/checkpoints")[-1] for way in WAYS}
    _together(measurement, [(jobs[way, "killed"], WAYS[way], False) for way in WAYS])
    for way in WAYS:
        report(**_compared(Path(jobs[way, "whole"].run), Path(jobs[way, "killed"].run), way, saved[way]))


def _job(measurement: Measurement, run: str) -> TrainingJob:
    sizes = measurement.sizes
    setup = setup_of(measurement, SHALLOW, sizes.peer_batch, sizes.peer_per_device, sizes.steps)
    job = job_of(setup, run, deepspeed={"zero_stage": ZERO}, model={"packing": True})
    checkpoints = CheckpointSettings(every_steps=EVERY, keep_last=1)
    return replace(job, exports_model=True, train=job.train.model_copy(update={"checkpoints": checkpoints}))


def _together(measurement: Measurement, runs: list[tuple[TrainingJob, bool, bool]]) -> None:
    """Runs at the same time; each is (job, deterministic, whether it kills itself)."""
    processes = [start(measurement.device, _train, measurement, *run) for run in runs]
    for process, (job, _, killed) in zip(processes, runs, strict=True):
        process.join()
        if process.exitcode != (-signal.SIGKILL if killed else 0):
            raise RuntimeError(f"{Path(job.run).name} ended with status {process.exitcode}")


class _Killer(Silent):
    """Ends this process as a lost machine would, once a checkpoint counts."""

    def on_checkpoint(self, path: str, metrics: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _train(measurement: Measurement, job: TrainingJob, deterministic: bool, killed: bool) -> None:
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS starts
        torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_training(job, world_of(measurement), listener=_Killer() if killed else None)
    without = sorted({str(one.message).split(" does not")[0] for one in caught if "deterministic" in str(one.message)})
    (Path(job.run) / "without.json").write_text(json.dumps(without))


def _compared(whole: Path, killed: Path, way: str, last: int) -> dict[str, Any]:
    first, second = (load_file(folder / "model" / "model.safetensors") for folder in (whole, killed))
    equal = all(torch.equal(first[name], second[name]) for name in first)
    lines = [
        [_of_step(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (whole, killed)
    ]
    gap = max(float((first[name].float() - second[name].float()).abs().max()) for name in first)
    without = json.loads((whole / "without.json").read_text())
    verdict = "bits equal" if equal and lines[0] == lines[1] else f"weights differ by up to {gap:.2g}"
    none = f"; no deterministic form: {', '.join(without)}" if without else ""
    return {
        "what": f"killed with {last} steps saved, repeated; {way} algorithms",
        "equal": equal and lines[0] == lines[1],
        "largest_difference": gap,
        "without_deterministic_form": without,
        "says": f"{verdict}{none}",
    }


def _of_step(line: str) -> dict[str, Any]:
    """What does not hang on the clock."""
    return {name: value for name, value in json.loads(line).items() if not name.startswith("perf/")}
