"""The metrics as TensorBoard events, where the recipe asks for them (needs the extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.errors import RecipeError


class TensorBoard:
    def __init__(self, run: str, step: int, *, on: bool):
        """Continue at `step`: events of a killed run that lie beyond it are hidden."""
        self.writer: Any = None
        if not on:
            return
        if not storage.is_local(run):
            raise RecipeError(f"output.tensorboard writes local files only, and the run is at {run}: switch it off")
        from torch.utils.tensorboard import SummaryWriter

        folder = storage.local(storage.join(run, "tensorboard"))
        self.writer = SummaryWriter(str(folder), purge_step=step or None)

    def add(self, metrics: Mapping[str, Any]) -> None:
        if self.writer is None:
            return
        for name, value in metrics.items():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, metrics["step"])

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
