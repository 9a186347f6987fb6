"""The time by which a training has to have ended, with a checkpoint: what is left for that is measured, not guessed.

It ends at the step after which no other one and a checkpoint would be done in time. How long a checkpoint takes is
known from the last one; where there was none until half of the time is over, one is saved in order to know.
"""

from __future__ import annotations

import time

import torch
import torch.distributed as dist

from mixdpo_ray.training.world import World

END_SECONDS = 5.0  # from the last checkpoint to the end of the job: workers leave, and Ray stops
GO_ON, MEASURE, STOP = 0.0, 1.0, 2.0
WHY_SAVED = {
    MEASURE: "to know how long one takes before train.stop_after",
    STOP: "the time of train.stop_after is over",
}


class Deadline:
    """Whether to save and to stop, which all ranks answer alike. Without one, `at` is None and nothing is asked."""

    def __init__(self, at: float | None, world: World):
        """`at`: UNIX time, by the clock of any rank: the first that sees it pass decides."""
        self.at, self.world = at, world
        self.began = self.looked = time.time()
        self.steps: list[float] = []  # seconds of the first one, and of the longest after it, with all that it does
        self.over = False

    def checkpoint_wanted(self, save_seconds: float | None) -> str | None:
        """Collective, after each step. `save_seconds`: what a checkpoint has taken, where that is known."""
        if self.at is None:
            return None
        decided = torch.tensor(self._decision(self.at, save_seconds, time.time()), device=self.world.torch_device)
        dist.all_reduce(decided, dist.ReduceOp.MAX)
        self.over = decided.item() == STOP
        return WHY_SAVED.get(decided.item())

    def _decision(self, at: float, save_seconds: float | None, now: float) -> float:
        took, self.looked = now - self.looked, now
        self.steps = [*self.steps[:1], max([took, *self.steps[1:]])]  # the first one compiles and fills caches
        if now + self.steps[-1] + (save_seconds or 0.0) + END_SECONDS >= at:
            return STOP
        return MEASURE if save_seconds is None and now > (self.began + at) / 2 else GO_ON
