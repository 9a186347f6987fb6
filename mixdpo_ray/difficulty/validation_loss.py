"""Validation loss, as SelectiveDPO computes it: the DPO loss of models that were trained on the other pairs.

For each seed the pairs are split into halves; a model is trained on each and scores the other, so that every pair is
scored once per seed by a model that has not seen it. Held-out pairs are scored by all of them.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from mixdpo_ray.difficulty.implicit_margin import log_ratio_gap
from mixdpo_ray.difficulty.metric import Column, HalfTraining, Metric, MetricContext
from mixdpo_ray.training.settings import LoraSettings


class ValidationLoss(Metric):
    """Minus the DPO loss, averaged over models trained by short runs on halves of the data that lack the pair."""

    needs: ClassVar[str] = "short training runs: two for each seed"
    trains: ClassVar[bool] = True

    seeds: int = Field(3, ge=1, description="Ways to split the data; each takes two trainings")
    seed: int = Field(42, ge=0, description="Of the first split; the others follow")
    beta: float = Field(0.01, gt=0, description="Of the DPO loss, in training and in scoring")
    learning_rate: float = Field(3e-5, gt=0, description="Of the short trainings")
    num_train_epochs: int = Field(1, ge=1, description="Of the short trainings")
    global_batch_size: int | None = Field(None, ge=1, description="Of the short trainings; train's by default")
    lora: LoraSettings | None = Field(LoraSettings(rank=16), description="Adapters; null trains all weights")

    def compute(self, context: MetricContext) -> Column:
        total, count = np.zeros(len(context.train)), np.zeros(len(context.train))
        for unseen in context.cross_fit(self._training()):
            total[unseen.positions] += dpo_loss(self.beta, log_ratio_gap(unseen.trained, unseen.start))
            count[unseen.positions] += 1
        losses: Column = total / count
        return -losses

    def _training(self) -> HalfTraining:
        return HalfTraining(
            seeds=range(self.seed, self.seed + self.seeds),
            beta=self.beta,
            learning_rate=self.learning_rate,
            num_train_epochs=self.num_train_epochs,
            global_batch_size=self.global_batch_size,
            lora=self.lora,
        )


def dpo_loss(beta: float, gap: Column) -> Column:
    """-log sigmoid(beta * gap), of log-ratio gaps [pairs]."""
    return np.logaddexp(0.0, -beta * gap)
