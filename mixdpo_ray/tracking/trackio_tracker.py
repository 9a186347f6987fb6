"""A training as a run of Trackio, under a name that holds the training's own id: Trackio finds runs by their names."""

from __future__ import annotations

import io
from typing import Any

from mixdpo_ray.tracking.outbox import Ending, TrackedLine
from mixdpo_ray.tracking.settings import TrackioSettings
from mixdpo_ray.tracking.tracked import Tracked


class TrackioTracker:
    def __init__(self, settings: TrackioSettings, tracked: Tracked, identifier: str):
        import trackio

        labels = {"labels": dict(tracked.labels)} if tracked.labels else {}
        self.run = trackio.init(
            project=settings.project,
            name=f"{tracked.name} {identifier.rpartition('-')[2]}",
            group=tracked.group,
            space_id=settings.space,
            private=settings.private,
            config={**tracked.settings, **labels, "mixdpo_ray.id": identifier},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._taken: int = self.run._next_step - 1

    def has(self, line: TrackedLine) -> bool:
        return line.done <= self._taken

    def log(self, line: TrackedLine) -> None:
        self.run.log(dict(line.numbers), step=line.done)

    def end(self, ending: Ending) -> None:
        import trackio

        last: dict[str, Any] = {}
        if ending.summary is not None:
            last.update({f"summary/{name}": value for name, value in ending.summary.items() if _is_number(value)})
        if ending.picture is not None:
            from PIL import Image

            last["curves"] = trackio.Image(Image.open(io.BytesIO(ending.picture())))
        if last:
            self.run.log(last)
        self.run.finish()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
