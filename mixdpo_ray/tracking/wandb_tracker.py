"""A training as a run of Weights & Biases, under the training's own id.

The server knows which steps a run has, and says so when it is resumed. Offline, what a killed process has written is
cut anywhere: the files are written anew, from all lines that the training keeps.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

from mixdpo_ray import storage
from mixdpo_ray.tracking.outbox import Ending, TrackedLine
from mixdpo_ray.tracking.settings import OURS, WandbSettings
from mixdpo_ray.tracking.tracked import Tracked

_LONGEST_TAG = 64
_SECONDS_TO_BEGIN = 20


class WandbTracker:
    def __init__(self, settings: WandbSettings, tracked: Tracked, identifier: str, run: str):
        import wandb

        folder = storage.local(run) if storage.is_local(run) else Path(tempfile.gettempdir())
        if settings.is_offline:
            _forget_offline_files(folder, identifier)
        self.run = wandb.init(
            project=settings.project or os.environ.get("WANDB_PROJECT") or OURS,
            entity=settings.entity,
            id=identifier,
            name=tracked.name,
            group=tracked.group,
            tags=[tag for name, value in tracked.labels.items() if len(tag := f"{name}={value}") <= _LONGEST_TAG],
            config={**tracked.settings, **({"labels": dict(tracked.labels)} if tracked.labels else {})},
            dir=str(folder),
            mode="offline" if settings.offline else None,
            resume="allow",
            reinit="create_new",  # whatever else this process tracks
            allow_val_change=True,
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=_SECONDS_TO_BEGIN, save_code=False, disable_code=True,
                disable_git=True, disable_job_creation=True,
            ),
        )  # fmt: skip
        self._taken: int = self.run.step - 1

    def has(self, line: TrackedLine) -> bool:
        """What was measured after a step is a part of its row, which one process writes."""
        return line.done <= self._taken

    def log(self, line: TrackedLine) -> None:
        self.run.log(dict(line.numbers), step=line.done)

    def end(self, ending: Ending) -> None:
        import wandb

        if ending.summary is not None:
            self.run.summary.update(dict(ending.summary))
        if ending.picture is not None:
            from PIL import Image

            self.run.log({"curves": wandb.Image(Image.open(io.BytesIO(ending.picture())))})
        self.run.finish(exit_code=0 if ending.summary is not None else 1)


def _forget_offline_files(folder: Path, identifier: str) -> None:
    for path in (folder / "wandb").glob(f"offline-run-*-{identifier}"):
        shutil.rmtree(path)
