"""A training as TensorBoard events, in the run's folder. Events of a killed run that lie ahead are hidden."""

from __future__ import annotations

import io
import json
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.tracking.outbox import Ending, TrackedLine
from mixdpo_ray.tracking.tracked import Tracked


class TensorBoardTracker:
    """`since`: the steps of which events are there, if there are any."""

    def __init__(self, tracked: Tracked, run: str, since: int):
        from torch.utils.tensorboard import SummaryWriter

        folder = storage.local(storage.join(run, "tensorboard"))
        self._taken = since if folder.is_dir() and any(folder.iterdir()) else -1
        self.writer: Any = SummaryWriter(str(folder), purge_step=since + 1 if self._taken >= 0 else None)
        if self._taken < 0:
            self.writer.add_text("recipe", _table(tracked.settings))

    def has(self, line: TrackedLine) -> bool:
        return line.done <= self._taken

    def log(self, line: TrackedLine) -> None:
        for name, value in line.numbers.items():
            self.writer.add_scalar(name, value, line.done)
        self.writer.flush()  # a kill loses what is not

    def end(self, ending: Ending) -> None:
        if ending.summary is not None:
            self.writer.add_text("summary", _table(ending.summary))
        if ending.picture is not None:
            from matplotlib.image import imread

            self.writer.add_image("curves", imread(io.BytesIO(ending.picture())), dataformats="HWC")
        self.writer.close()


def _table(values: Any) -> str:
    rows = [
        f"| {name} | `{value if isinstance(value, str) else json.dumps(value)}` |" for name, value in values.items()
    ]
    return "\n".join(["| | |", "|---|---|", *rows])
