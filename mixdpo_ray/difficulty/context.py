"""What a difficulty metric is computed from, and may ask for; the room that has a cluster fulfils it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.training.settings import LoraSettings

if TYPE_CHECKING:
    from mixdpo_ray.difficulty.metric import AnswerLogps, Column, Formula, MetricInputs


@dataclass(frozen=True)
class HalfTraining:
    """Short DPO trainings of the untrained policy: for each seed two, on the halves of the pairs that it draws."""

    seeds: Sequence[int]
    beta: float
    learning_rate: float
    num_train_epochs: int
    global_batch_size: int | None  # the recipe's where there is none
    lora: LoraSettings | None  # adapters; without them all weights are trained


@dataclass(frozen=True)
class Unseen:
    """The pairs that one training has not seen, and their log-probs under its model and under the one it began with."""

    positions: NDArray[np.int64]  # [pairs], each once, of what `compute` gives
    trained: AnswerLogps
    start: AnswerLogps


class MetricContext(Protocol):
    """The pairs of one prepared table: the training pairs and behind them the held-out ones."""

    @property
    def train(self) -> NDArray[np.bool_]:
        """The mask [pairs] of those whose statistics are those of the data set."""

    def column(self, name: str) -> Column:
        """One of the table's own."""

    def inputs(self, metric: Formula) -> MetricInputs:
        """All that the metric says it reads."""

    def cross_fit(self, training: HalfTraining) -> Sequence[Unseen]:
        """Train models on halves of the pairs; each gives the log-probs of the pairs that it has not seen.

        Needs room on the cluster (`Metric.trains`). What was trained and scored before is read.
        """
