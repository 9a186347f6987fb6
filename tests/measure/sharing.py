"""What sharing one pass of the reference model saves: a study, and the same study whose trials each compute their own.

python -m tests.measure.sharing [--trials 8] [--pairs 3000]

Both run the same settings (a random sampler with one seed, no early stopping), one after the other, on a Ray of their
own. Counted are the CPU seconds of every process that a study started, so other work on the machine hardly matters.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.scoring.reference import cover
from mixdpo_ray.search.trial import Trial
from mixdpo_ray.search.tune import tune
from mixdpo_ray.storage import join
from mixdpo_ray.tables.prepared_table import PreparedTable

RECIPE = """
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, max_prompt_length: 16, max_length: 64}}
train: {{global_batch_size: 64, per_device_train_batch_size: 32, optimizer: {{learning_rate: 5e-4}}}}
cluster: {{use_gpu: false}}
tune:
  num_samples: {trials}
  sampler: random
  early_stopping: {{pruner: none}}
  workers_per_trial: 1
  max_concurrent_trials: 2
output: {{storage_path: {folder}/{arm}, name: study}}
"""


class OwnReference(Trial):
    """A trial that shares the prepared table, and nothing else."""

    def step(self) -> dict[str, Any]:
        shared = self.shared
        (folder,) = shared.tables.values()
        table = PreparedTable.open(folder)
        place = join(shared.folder, self.trial["folder"])
        output = shared.recipe.output.model_copy(update={"storage_path": place})
        recipe = shared.recipe.model_copy(update={"output": output})
        everything = {split: np.arange(table.rows(split)) for split in ("train", "eval")}
        self.shared = replace(shared, reference=cover(recipe, table, everything))
        return super().step()


ARMS = {"shared": Trial, "own": OwnReference}


def study(folder: Path, arm: str, trials: int) -> None:
    path = folder / f"{arm}.yaml"
    path.write_text(RECIPE.format(folder=folder, arm=arm, trials=trials))
    print(tune(load_recipe(str(path)), ARMS[arm]).describe())


def cpu_seconds(command: list[str]) -> float:
    """Of a process and everything under it, each process at the last moment it was seen."""
    process = psutil.Popen(command)
    seen: dict[tuple[int, float], float] = {}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            for member in [process, *_children(process)]:
                try:
                    with member.oneshot():
                        times = member.cpu_times()
                        seen[member.pid, member.create_time()] = times.user + times.system
                except psutil.Error:
                    continue  # it ended while we looked

    thread = threading.Thread(target=watch)
    thread.start()
    status = process.wait()
    done.set()
    thread.join()
    assert status == 0
    return sum(seen.values())


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3000)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.arm:
        study(arguments.folder, arguments.arm, arguments.trials)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_model(folder / "model")
        write_pairs(folder / "pairs.jsonl", arguments.pairs)
        spent = {}
        for arm in ARMS:
            inner = ["--arm", arm, "--folder", name, "--trials", str(arguments.trials)]
            spent[arm] = cpu_seconds([sys.executable, "-m", "tests.measure.sharing", *inner])
        print({arm: round(seconds, 1) for arm, seconds in spent.items()})
        print(f"references in each trial cost {spent['own'] / spent['shared']:.2f} times the CPU seconds")


if __name__ == "__main__":
    main()
