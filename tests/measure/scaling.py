"""The same steps on one worker and on two: how much of twice the speed is reached, and where the rest goes.

python -m tests.measure.scaling [--pairs PAIRS.parquet] [--per-device 4] [--rounds 3]

Each worker has one thread, and all have the same pairs in a step (strong scaling), under the ZeRO stage that is asked
for. The two take turns. Beside the measured speed stands what the deal of pairs alone would allow: the tokens of one
worker over those of the busier of two.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixdpo_ray.curriculum.shares import Lengths, deal
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.measure.arms import COLUMNS
from tests.measure.bench import write_model
from tests.measure.step_options import chosen_rows, step_parser
from tests.measure.timed import timed_training
from tests.peer.ours import make_job, write_inputs
from tests.peer.setup import Row, Setup
from tests.training.gang import Gang

BETA = 0.1


def train(world: World, job: TrainingJob) -> dict[str, Any]:
    torch.set_num_threads(1)
    return timed_training(job, world) if world.leads else run_training(job, world)


def busiest(rows: list[Row], batch: int, workers: int, per_device: int) -> int:
    """Computed tokens of the worker with most of them, over all steps: the others wait for it in each."""
    total = 0
    for first in range(0, len(rows), batch):
        step = rows[first : first + batch]
        lengths = Lengths(*(np.array([len(row[name]) for row in step]) for name in COLUMNS))
        computed = lengths.prompt + lengths.chosen + lengths.rejected
        shares = deal(lengths, np.zeros(len(step), np.bool_), workers, per_device, packed=True)
        total += max(sum(int(computed[micro.rows].sum()) * micro.weight for micro in share) for share in shares)
    return total


def main() -> None:
    parser = step_parser(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--zero-stage", type=int, default=2)
    options = parser.parse_args()
    rows = chosen_rows(options, options.steps * options.global_batch)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    outside: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="mixdpo-scaling-") as folder:
        work = Path(folder)
        write_model(work / "model")
        write_inputs(work, work / "model", rows)
        setup = Setup(work / "model", rows, 1e-4, options.global_batch, options.per_device, options.steps, BETA)
        for number in range(options.rounds):
            for workers in seconds:
                job = make_job(setup, work, DPO(beta=BETA), f"run-{number}-{workers}")
                sharded = job.deepspeed.model_copy(update={"zero_stage": options.zero_stage})
                packed = job.model.model_copy(update={"packing": True})
                gang = Gang(workers)  # a clock replaces parts of the loop for good
                first, *_ = gang(train, replace(job, deepspeed=sharded, model=packed))
                gang.close()
                seconds[workers] += first["seconds"]
                outside[workers].append(first["outside"])
    one, two = (statistics.median(seconds[workers]) for workers in seconds)
    allowed = busiest(rows, options.global_batch, 1, options.per_device) / busiest(
        rows, options.global_batch, 2, options.per_device
    )
    for workers, values in seconds.items():
        print(
            f"{workers} worker{'s' * (workers > 1)}: {statistics.median(values):.2f} s/step "
            f"({min(values):.2f}-{max(values):.2f}), outside forward, backward and optimizer "
            f"{statistics.median(outside[workers]):.1%}"
        )
    print(f"two are {one / two:.2f} times as fast as one; the deal of pairs allows {allowed:.2f}")


if __name__ == "__main__":
    main()
