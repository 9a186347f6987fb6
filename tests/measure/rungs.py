"""Do rungs foretell the end? Rungs of thinned whole curricula against the early part of one, and against none.

    python -m tests.measure.rungs --seeds 5 --configurations 16 --out FOLDER

Every seed has a playground and configurations of its own. A training that has ended leaves a line in trainings.jsonl,
so that the same command again does what is missing. Written: report.txt, report.json, report.png.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.recipe.cluster import ClusterSettings
from tests.measure.rungs_report import report
from tests.measure.rungs_training import THINS, Sizes, make_arena, make_playground, train_once

Line = dict[str, Any]
Key = tuple[int, int, int]  # seed, configuration, thin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--configurations", type=int, default=16, help="of each seed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=5600)
    parser.add_argument("--base-steps", type=int, default=600)
    parser.add_argument("--global-batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--held-out", type=float, default=0.18, help="share of the pairs")
    parser.add_argument("--orders", type=int, default=200, help="random orders that halving is simulated in")
    parser.add_argument("--report-only", action="store_true", help="of the seeds that are complete")
    options = parser.parse_args()
    sizes = Sizes(options.prompts, options.base_steps, options.global_batch, options.epochs, options.held_out)
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    check_sizes(out / "sizes.json", sizes)
    if not options.report_only:
        train_all(out, sizes, options)
    facts = {**asdict(sizes), "configurations": options.configurations, "orders": options.orders}
    print(report(read_lines(out / "trainings.jsonl"), out, facts))


def check_sizes(path: Path, sizes: Sizes) -> None:
    """Trainings of other sizes cannot be compared with those that lie there."""
    if path.exists() and json.loads(path.read_text()) != asdict(sizes):
        sys.exit(f"{path} says other sizes: {path.read_text()}; choose another --out")
    path.write_text(json.dumps(asdict(sizes)))


def read_lines(path: Path) -> list[Line]:
    """Without a last line that a kill cut short, or that is being written."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def train_all(out: Path, sizes: Sizes, options: argparse.Namespace) -> None:
    """Playgrounds and trainings in processes of their own; Ray only between them, in this one."""
    asked = set(product(range(options.seeds), range(options.configurations), THINS))
    record = Record(out / "trainings.jsonl", asked)
    with ProcessPoolExecutor(options.processes, get_context("spawn"), initializer=settle) as pool:
        trainings: list[Future[Line]] = []
        playgrounds = [pool.submit(make_playground, out / "seed-0", 0, sizes)]
        for seed in range(options.seeds):
            if seed + 1 < options.seeds:  # before this seed's trainings, so that it is there when they have ended
                playgrounds.append(pool.submit(make_playground, out / f"seed-{seed + 1}", seed + 1, sizes))
            missing = sorted(key for key in asked - record.done if key[0] == seed)
            playgrounds[seed].result()
            if not missing:
                continue
            folder = out / f"seed-{seed}"
            with connected(ClusterSettings(use_gpu=False)):
                arena = make_arena(folder, seed, sizes, options.configurations)
            for _, number, thin in missing:
                trainings.append(pool.submit(train_once, arena, number, thin, folder / "runs" / f"{number}-{thin}"))
                trainings[-1].add_done_callback(record.add)
        for training in trainings:
            training.result()


class Record:
    """The file of trainings that have ended. Its callbacks come one at a time, from the pool's one thread."""

    def __init__(self, path: Path, asked: set[Key]):
        self.path, self.asked, self.began = path, asked, time.monotonic()
        lines = read_lines(path)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))  # the next line begins anew
        self.done: set[Key] = {(line["seed"], line["configuration"], line["thin"]) for line in lines}

    def add(self, training: Future[Line]) -> None:
        if training.cancelled() or training.exception():
            return  # train_all meets it
        line = training.result()
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self.done.add((line["seed"], line["configuration"], line["thin"]))
        seconds = time.monotonic() - self.began
        print(
            f"{len(self.done & self.asked)}/{len(self.asked)} trainings, {seconds:.0f} s", file=sys.stderr, flush=True
        )


def settle() -> None:
    """The models are too small for more than one thread, and deepspeed would look for a device."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
