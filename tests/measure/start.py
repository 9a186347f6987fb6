"""Where the seconds of `jobs/train.py` go: by phase and by process, beside the floor that Ray Train alone sets.

    python -m tests.measure.start [--rounds 3] [--steps 20]

It trains the playground's recipe from a prepared table (made first, if it is not there) and watches from outside: what
the job prints, the first line of a step in metrics.jsonl, and the CPU seconds of every process that it started. The
floor, in the same round, is a bare TorchTrainer script whose two workers import torch, transformers and DeepSpeed and
take one step. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from tests.measure.timeline import END, FIRST_STEP, LAST_STEP, Timeline, timeline

ROOT = Path(__file__).parents[2]
RECIPE = "jobs/recipes/playground.yaml"
FLOOR = str(Path(__file__).with_name("start_floor.py"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of job and floor in turn (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="that the job trains (default: %(default)s)")
    parser.add_argument("--world", type=Path, help="outputs of an earlier demo (made anew where there are none)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mixdpo-start-") as folder:
        storage = arguments.world or Path(folder)
        if not (storage / "world").is_dir():
            timeline([sys.executable, "jobs/playground.py", f"output.storage_path={storage}"], ROOT)
        rounds = [(train(storage, arguments.steps), floor()) for _ in range(arguments.rounds)]
    for number, pair in enumerate(rounds, start=1):
        for title, line in zip(("jobs/train.py", "floor"), pair, strict=True):
            print(f"\n--- round {number}: {title}\n{line.describe()}")
    print(f"\n--- medians of {len(rounds)}\n{summary(rounds)}")


def train(storage: Path, steps: int) -> Timeline:
    """The job, started anew on a table and reference values that are there."""
    overrides = [
        f"model.path={storage}/world/base",
        f"data.source.path={storage}/world/pairs.jsonl",
        f"output.storage_path={storage}",
        "output.name=start",
        "output.fresh=true",
        f"train.max_steps={steps}",
    ]
    return timeline(
        [sys.executable, "jobs/train.py", RECIPE, *overrides],
        ROOT,
        metrics=storage / "runs" / "start" / "metrics.jsonl",
        steps=steps,
    )


def floor() -> Timeline:
    return timeline([sys.executable, FLOOR], ROOT)


def summary(rounds: list[tuple[Timeline, Timeline]]) -> str:
    jobs, floors = ([pair[side] for pair in rounds] for side in (0, 1))
    rows = {
        "to the first step": ([line.at(FIRST_STEP) for line in jobs], [line.at(FIRST_STEP) for line in floors]),
        "after the last step": (
            [line.at(END) - line.at(LAST_STEP) for line in jobs],
            [line.at(END) - line.at(FIRST_STEP) for line in floors],
        ),
        "CPU seconds in all": ([line.cpu_seconds for line in jobs], [line.cpu_seconds for line in floors]),
    }
    lines = [f"{'':<22}{'job':>8}{'floor':>8}{'ratio':>8}"]
    for name, (ours, bare) in rows.items():
        job, least = statistics.median(ours), statistics.median(bare)
        lines.append(f"{name:<22}{job:>8.1f}{least:>8.1f}{job / least:>8.2f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
