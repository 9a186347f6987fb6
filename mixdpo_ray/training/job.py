"""Everything one training run depends on, as one value that can be sent to a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curriculum.halves import Half
from mixdpo_ray.curriculum.plan import Plan, make_plan
from mixdpo_ray.curriculum.refresh import refresh_steps
from mixdpo_ray.curriculum.routing import hard_positions
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.curriculum.threshold import TOLERANCE
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.trained_rows import sft_rows
from mixdpo_ray.tracking.tracked import Tracked
from mixdpo_ray.training.settings import CheckpointJudgeSettings, DeepSpeedSettings, ModelSettings, TrainSettings


@dataclass(frozen=True)
class StartFrom:
    """The point at which another run ended (first_stage.py)."""

    run: str
    fingerprint: str
    step: int


@dataclass(frozen=True)
class TrainingJob:
    model: ModelSettings
    curriculum: CurriculumSettings
    objective: Objective
    train: TrainSettings
    deepspeed: DeepSpeedSettings
    prepared: str  # folder of the prepared table
    reference: str | None  # folder of the reference table; None where the objective needs none
    run: str  # folder of the run
    fingerprint: str  # checkpoints of another fingerprint are refused
    card: dict[str, Any] = field(default_factory=dict)  # facts for the model card
    tracked: Tracked | None = None  # how trackers show it; None where nobody is to see it
    exports_model: bool = True  # a search wants to know how good it is, and trains the winner again
    keeps_state: bool = False  # others begin where it ends
    start_from: StartFrom | None = None  # instead of the model as it is
    judge: CheckpointJudgeSettings | None = None  # whoever sets it looks at the checkpoints
    stop_at: float | None = None  # UNIX time by which the job has ended, with a checkpoint (deadline.py)
    half: Half | None = None  # of the pairs, in random order, instead of what the curriculum says

    def plan(self, table: PreparedTable) -> Plan:
        batch, epochs = self.train.global_batch_size, self.train.num_train_epochs
        if self.half is not None:
            return self.half.plan(table.index("train").pair_id, batch, epochs)
        return make_plan(self.curriculum, self.hard(table), batch, epochs, sft_rows(table))

    def hard(self, table: PreparedTable) -> NDArray[np.bool_]:
        """Over the positions of the training split."""
        index = table.index("train")
        if self.half is not None:
            return self.half.outside(index.pair_id)
        hard = hard_positions(self.curriculum, index.difficulty, index.pair_id)
        return hard if self.objective.takes_ties else self._ties_routed(hard, index.margin)

    def _ties_routed(self, hard: NDArray[np.bool_], margin: NDArray[np.float64]) -> NDArray[np.bool_]:
        ties = margin <= TOLERANCE
        if self.curriculum.mode == "sorted_dpo" and ties.any():
            raise RecipeError(
                f"objective {type(self.objective).__name__} has no loss for ties, {np.count_nonzero(ties)} of "
                f"{len(ties)} pairs, and curriculum.mode sorted_dpo trains all pairs by it: choose two_stage, router "
                "or discard_hard"
            )
        return hard | ties

    def steps(self, plan: Plan) -> int:
        return min(plan.steps, self.train.max_steps or plan.steps)

    @property
    def hard_objective(self) -> Objective | None:
        """The one of hard pairs; without one they are trained by SFT."""
        return self.curriculum.hard_objective

    @property
    def _objectives(self) -> tuple[Objective, ...]:
        return (self.objective,) if self.hard_objective is None else (self.objective, self.hard_objective)

    @property
    def needs_reference(self) -> bool:
        return any(one.needs_reference for one in self._objectives)

    @property
    def needs_tokens(self) -> bool:
        return any(one.needs_tokens for one in self._objectives)

    @property
    def needs_typicality(self) -> bool:
        return any(one.needs_typicality for one in self._objectives)

    def compared(self, hard: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pairs that meet an objective, and so the reference, if they are trained: easy ones, and what is hard too
        where the objective of those has a reference.
        """
        ties = self.hard_objective is not None and self.hard_objective.needs_reference
        return np.ones_like(hard) if ties else ~hard

    def refresh_steps(self, plan: Plan) -> tuple[int, ...]:
        """Those that are trained, and before which the policy becomes the reference."""
        if self.half is not None or not self.needs_reference:
            return ()
        compared = self.compared(plan.hard) & (plan.hard | self.objective.needs_reference)
        return tuple(step for step in refresh_steps(self.curriculum, plan, compared) if step < self.steps(plan))

    def reference_positions(self, plan: Plan, since: int = 0) -> NDArray[np.bool_]:
        """The positions of pairs that are compared with the reference, in a window that is trained.

        `since`: the step from which on, until the policy becomes the reference the next time.
        """
        trained = np.zeros(len(plan.hard), np.bool_)
        ends = (step for step in self.refresh_steps(plan) if step > since)
        for step in range(since, next(ends, self.steps(plan))):
            positions = plan.window(step).positions
            trained[positions[positions < len(trained)]] = True
        return trained & self.compared(plan.hard)

    def without_export(self) -> Self:
        """The same job, run for its measurements only."""
        return replace(self, exports_model=False)

    def in_group(self, group: str, name: str, labels: Mapping[str, Any]) -> Self:
        """The same job, shown as a part of a comparison or study."""
        return replace(self, tracked=self.tracked and self.tracked.in_group(group, name, labels))

    def with_reference(self, folder: str | None) -> Self:
        return replace(self, reference=folder)
