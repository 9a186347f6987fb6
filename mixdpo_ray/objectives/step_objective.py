"""Objectives whose pairs feel each other: through numbers that are read off all easy pairs of an optimizer step first.

Taken over a micro-batch such numbers would depend on how a step is split. Here a pass without gradient gathers the
log-probs of the whole step from all ranks; every rank computes the same numbers from them, and hands each pair its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.tensors import Tensor

if TYPE_CHECKING:
    import torch

ObjectiveState = Mapping[str, Tensor]  # float64; saved with every checkpoint


@dataclass(frozen=True)
class StepView:
    pairs: PairLogps  # all easy pairs of the step in the order of the plan, detached, in float64
    state: ObjectiveState = field(default_factory=dict)  # what was kept of the steps before
    progress: float = 1.0  # share of the stage that is done
    seed: int = 0  # of this step; equal on every rank
    mismatched_ratio: Tensor | None = None  # policy minus reference on foreign answers, where they are asked for

    @property
    def generator(self) -> torch.Generator:
        import torch

        return torch.Generator().manual_seed(self.seed)


class StepObjective(Objective):
    reads_mismatched: ClassVar[bool] = False  # wants sums of foreign answers and not of the step's own pairs

    @abstractmethod
    def statistics(self, step: StepView) -> tuple[dict[str, Tensor], ObjectiveState]:
        """Detached numbers for each pair of the step [pairs], which `losses` finds in `pairs.step`; what to keep."""


def reads_mismatched(objective: Objective) -> bool:
    return isinstance(objective, StepObjective) and objective.reads_mismatched


def spread(values: Tensor) -> Tensor:
    """The unbiased standard deviation; 0 of a single value, which has none."""
    return values.std() if len(values) > 1 else values.new_zeros(())


def moving(state: ObjectiveState, name: str, now: Tensor, momentum: float) -> Tensor:
    """A moving average that began at 0, with `now` in it."""
    return momentum * state.get(name, now.new_zeros(now.shape)) + (1 - momentum) * now
