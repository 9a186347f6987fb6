"""A program: what a training tells its trackers, from a step on, and perhaps a kill when they have taken it.

python -m tests.tracking.killed_training FOLDER FIRST_STEP KILLED_IN_STEP TRACKER...
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixdpo_ray.tracking.settings import (
    MlflowSettings,
    TensorBoardSettings,
    TrackerSettings,
    TrackioSettings,
    WandbSettings,
)
from mixdpo_ray.tracking.tracked import Tracked
from mixdpo_ray.tracking.trackers import start_trackers

STEPS, EVERY = 10, 4
PASSWORD = "a-password-of-the-environment"
CONFIG = {
    "objective": {"name": "dpo", "beta": 0.1},
    "tune": {"storage": f"postgresql://me:{PASSWORD}@host/db"},
    "compare": {"arms": {"dpo, at 0.1": {"objective.beta": 0.1}}},
}
LABELS = {"arm": "dpo", "seed": 1, "objective.beta": 0.1}


def lines(first: int, last: int) -> Iterator[dict[str, Any]]:
    if first == 0:
        yield {"kind": "eval", "step": 0, "eval_loss": 1.0}
    for step in range(first, last):
        yield {"step": step, "stage": "easy", "loss": 1 / (step + 1), "rewards/accuracies": 0.5}
        if (step + 1) % EVERY == 0:
            yield {"kind": "eval", "step": step + 1, "eval_loss": 1 / (step + 2)}


def settings(folder: Path) -> dict[str, TrackerSettings]:
    return {
        "wandb": WandbSettings(offline=True),
        "mlflow": MlflowSettings(uri=f"file://{folder}/mlruns"),
        "trackio": TrackioSettings(),
        "tensorboard": TensorBoardSettings(),
    }


def picture() -> bytes:
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 4), "white").save(file, "png")
    return file.getvalue()


def main(folder: Path, first: int, killed_in: int, names: list[str]) -> None:
    known = settings(folder)
    tracked = Tracked({name: known[name] for name in names}, "dpo, seed 1", CONFIG, "study", LABELS)
    before = lines(0, first) if first else ()
    started = start_trackers(tracked, f"{folder}/run", "0123456789abcdef", first, before, print, picture)
    with started as trackers:
        for line in lines(first, STEPS):
            trackers.add(line)
            if line["step"] == killed_in:
                while not all(outbox.is_empty for outbox in trackers.outboxes):
                    time.sleep(0.05)
                time.sleep(float(os.environ.get("SECONDS_BEFORE_THE_KILL", "0")))
                os.kill(os.getpid(), signal.SIGKILL)
        trackers.end({"steps": STEPS, "peak_memory_gib": 1.5})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
