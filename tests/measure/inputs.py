"""Models of random weights, tables of made pairs and their references, once for all phases; and jobs on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.world import World
from tests.measure.made_rows import made_rows
from tests.measure.phases import Measurement, Report
from tests.measure.sizes import Shape
from tests.peer.ours import make_job, write_inputs
from tests.peer.setup import Row, Setup

MODEL, SHALLOW, LARGER = "model", "shallow", "larger"  # folders, each with a model, a table and references
BETA, RATE = 0.1, 1e-4  # losses move within a few steps, so that equal ones mean something


def run(measurement: Measurement, report: Report) -> None:
    for folder in (MODEL, SHALLOW):
        write(measurement, folder)
        shape = shape_of(measurement, folder)
        report(what=shape.name, linear_weights=shape.linear_weights, pairs=len(rows_of(measurement, folder)))


def write(measurement: Measurement, name: str) -> None:
    """A random model, and what it makes of its rows, by the code and in the number format of training."""
    folder, shape = measurement.work / name, shape_of(measurement, name)
    shape.write(folder / "model", measurement.device)
    rows = rows_of(measurement, name)
    at_once = 32 if measurement.on_gpu else 8
    write_inputs(folder, folder / "model", rows, at_once, dtype="bfloat16", device=measurement.device)


def shape_of(measurement: Measurement, name: str) -> Shape:
    sizes = measurement.sizes
    return {MODEL: sizes.model, SHALLOW: sizes.shallow, LARGER: sizes.larger}[name]


def rows_of(measurement: Measurement, name: str) -> list[Row]:
    """The same ones wherever they are asked for."""
    sizes = measurement.sizes
    count = {MODEL: sizes.batch * sizes.steps, SHALLOW: sizes.peer_batch * sizes.steps, LARGER: sizes.micro_pairs}
    return made_rows(count[name], shape_of(measurement, name).vocabulary, sizes.shortened)


def setup_of(measurement: Measurement, name: str, batch: int, per_device: int, steps: int) -> Setup:
    rows = rows_of(measurement, name)[: batch * steps]
    path = measurement.work / name / "model"
    return Setup(path, rows, RATE, batch, per_device, steps, BETA, "bfloat16", measurement.device)


def job_of(setup: Setup, run: str, **settings: Any) -> TrainingJob:
    """`settings`: parts of the job that are changed, each by a dictionary. The policy leaves nothing behind.

    A CPU has kernels of its own alone, whatever is asked for.
    """
    if setup.device == "cpu" and "model" in settings:
        settings["model"] = {name: value for name, value in settings["model"].items() if name != "kernels"}
    job = make_job(setup, setup.model.parent, DPO(beta=setup.beta), run)
    changed = {name: getattr(job, name).model_copy(update=update) for name, update in settings.items()}
    return replace(job, exports_model=False, **changed)


def world_of(measurement: Measurement) -> World:
    return World(device=measurement.device)
