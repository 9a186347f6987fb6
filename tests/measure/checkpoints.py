"""How long steps wait for checkpoints, on a disk and in an object store that lets every request wait.

python -m tests.measure.checkpoints [--width 512] [--layers 6] [--steps 40] [--every 10] [--latency 0.05]

Two workers without Ray train random weights (float32, ZeRO-2) on made pairs. Between a step's end and the next step's
beginning nothing happens but checkpoints: what that takes is summed up, and divided by the checkpoints that steps came
after. The last one of a run is always waited for, and told apart. Another version of the package is measured by putting
its folder first in PYTHONPATH.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mixdpo_ray import storage
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import CheckpointSettings
from mixdpo_ray.training.world import World
from mixdpo_ray.wording import size_text
from tests.measure.made_rows import save_tokenizer
from tests.slow_store import NAME, slow_store
from tests.training.gang import Gang
from tests.training.tiny import VOCABULARY, make_job, make_table


@dataclass
class Clock(Silent):
    """Seconds between steps, and of steps. A step ends with its line of metrics."""

    between: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    mark: float | None = None

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.steps.append(metrics["perf/seconds"])
        self.mark = time.perf_counter()

    def at_location(self, location: str | None, *, slow: bool = False) -> None:
        begins = location is None or "waiting for its pairs" in location
        if begins and self.mark is not None:
            self.between.append(time.perf_counter() - self.mark)
            self.mark = None


def trained(world: World, job: TrainingJob, environment: dict[str, str]) -> Clock:
    os.environ.update(environment)
    clock = Clock()
    run_training(job, world, listener=clock)
    return clock


def write_inputs(folder: Path, width: int, layers: int) -> int:
    """The number of weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=64,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "model")
    save_tokenizer(folder / "model", words=8)
    make_table(folder / "table")
    return sum(parameter.numel() for parameter in model.parameters())


def report(place: str, job: TrainingJob, clock: Clock, every: int) -> str:
    saves = len(range(every, len(clock.steps), every))
    size = sum(
        info.size
        for info in storage.open_filesystem(job.run)[0].get_file_info(_all_files(job.run))
        if info.size and f"step-{len(clock.steps)}" in info.path
    )
    waited = sum(clock.between[:-1]) / saves
    return (
        f"{place:28} {size_text(size):>10} {waited:8.2f} {max(clock.between[:-1]):8.2f} {clock.between[-1]:8.2f} "
        f"{statistics.median(clock.steps[1:]):8.2f}"
    )


@contextmanager
def _environment(run: str, latency: float) -> Iterator[dict[str, str]]:
    if storage.is_local(run):
        yield {}
        return
    with slow_store(latency) as environment:
        yield environment


def _all_files(run: str) -> Any:
    import pyarrow.fs as pafs

    _, inner = storage.open_filesystem(run)
    return pafs.FileSelector(f"{inner}/checkpoints", recursive=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that each request waits")
    options = parser.parse_args()
    gang = Gang(2)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights = write_inputs(folder, options.width, options.layers)
        print(f"{weights / 1e6:.1f} M weights, {options.steps} steps, a checkpoint every {options.every}; seconds:")
        print(f"{'':28} {'size':>10} {'wait':>8} {'longest':>8} {'last':>8} {'step':>8}", flush=True)
        job = make_job(
            folder, folder / "run", objective=SimPO(), max_steps=options.steps, num_train_epochs=options.steps // 5 + 1,
            checkpoints=CheckpointSettings(every_steps=options.every),
        )  # fmt: skip
        job = replace(job, exports_model=False, keeps_state=True)
        for place, run in (("disk", job.run), (f"store, {options.latency:g} s a request", f"s3://{NAME}/run")):
            with _environment(run, options.latency) as environment:
                clock = gang(trained, replace(job, run=run), environment)[0]
                print(report(place, replace(job, run=run), clock, options.every), flush=True)
    gang.close()


if __name__ == "__main__":
    main()
