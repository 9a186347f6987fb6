"""Log-probs of every pair under models that have not seen it: short trainings on halves of the data score the others.

A training's scores lie in scores/<fingerprint>/, named by its pairs, model and settings and keyed by pair_id. One that
was cut continues at its checkpoint, and one whose scores are there is not repeated: more seeds cost what they add. The
trained model is deleted once it has scored. All that are missing are trained first, one after the other by one group
of workers, whose room the scoring then takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.curriculum.halves import Half
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.difficulty.metric import AnswerLogps, HalfTraining, Unseen
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.scoring.reference import logps_pool
from mixdpo_ray.scoring.short_training import short_training, train_models
from mixdpo_ray.tables.keyed_table import SCORES
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.model_files import model_digest
from mixdpo_ray.training.settings import ModelSettings, TrainSettings


@dataclass(frozen=True)
class HalfFit:
    """A training on half of the pairs, and what it scores."""

    half: Half
    identity: dict[str, Any]
    name: str
    folder: str  # of the scores
    others: NDArray[np.int64]  # the positions that it does not train on

    @property
    def run(self) -> str:
        return storage.join(self.folder, "training")

    @property
    def record(self) -> RunRecord:
        return RunRecord(self.run)


@dataclass(frozen=True)
class CrossFit:
    recipe: Recipe
    table: PreparedTable
    metric: str  # by name, for which it is done first: others that train alike read its scores
    training: HalfTraining
    start: ModelSettings  # of every training, and its reference
    start_folder: str  # of its log-probs
    start_logps: AnswerLogps  # of all training pairs and then all held-out ones

    def unseen(self) -> list[Unseen]:
        """The pairs that the model of each training has not seen: [train pairs, then held-out pairs]."""
        fits = [self.half_fit(Half(seed, number)) for seed in self.training.seeds for number in (0, 1)]
        about = self.metric.replace("_", " ")
        with ExitStack() as held:
            for fit in sorted(fits, key=lambda fit: fit.folder):  # so that no two drivers wait for each other
                held.enter_context(exclusive(fit.folder))
            titles = {fit.name: f"{about}, training {n} of {len(fits)}" for n, fit in enumerate(fits, 1)}
            self._train({titles[fit.name]: fit for fit in fits if self._missing(fit)})
            return [self._scored(fit, titles[fit.name]) for fit in fits]

    def _scored(self, fit: HalfFit, title: str) -> Unseen:
        positions = np.concatenate([fit.others, self.table.rows("train") + np.arange(self.table.rows("eval"))])
        start = AnswerLogps(self.start_logps.chosen[positions], self.start_logps.rejected[positions])
        return Unseen(positions, self._logps(fit, title), start)

    def half_fit(self, half: Half) -> HalfFit:
        identity = self._identity(half)
        name = fingerprint(identity)
        folder = storage.join(storage.absolute(self.recipe.output.storage_path), SCORES, name)
        return HalfFit(half, identity, name, folder, np.sort(half.other.positions(self._ids("train"))))

    def _ids(self, split: str) -> Sequence[str]:
        return self.table.index(split).pair_id

    def _needed(self, fit: HalfFit) -> dict[str, NDArray[np.int64]]:
        return {"train": fit.others, "eval": np.arange(self.table.rows("eval"))}

    def _needed_ids(self, fit: HalfFit) -> list[str]:
        return [self._ids(split)[position] for split, there in self._needed(fit).items() for position in there]

    def _store(self, fit: HalfFit) -> ReferenceTable:
        return ReferenceTable.create(fit.folder, fit.name, {"metric": self.metric, **fit.identity})

    def _missing(self, fit: HalfFit) -> bool:
        return bool(self._store(fit).missing(self._needed_ids(fit)))

    def _train(self, fits: Mapping[str, HalfFit]) -> None:
        """Those whose models are not there from before a death."""
        jobs = {title: self._job(fit) for title, fit in fits.items() if fit.record.summary() is None}
        train_models(self.recipe.cluster, jobs, self.table)

    def _logps(self, fit: HalfFit, title: str) -> AnswerLogps:
        """Log-probs of the pairs that a half scores, under the model that was trained on the rest."""
        store, ids = self._store(fit), self._needed_ids(fit)
        if store.missing(ids):
            trained = self.start.model_copy(update={"path": fit.record.model, "revision": None})
            actor_pool.cover_positions(
                logps_pool(self.recipe, self.table, trained, title), self.table, store, self._needed(fit)
            )
            for path in (fit.record.model, fit.record.checkpoints, fit.record.summary_file):
                storage.delete(path)
        chosen, rejected = store.aligned(ids)
        return AnswerLogps(chosen.astype(np.float64), rejected.astype(np.float64))

    def _identity(self, half: Half) -> dict[str, Any]:
        ids = self._ids("train")
        trained = sorted(ids[position] for position in half.positions(ids))
        return {
            "pairs": hashlib.sha256("".join(trained).encode()).hexdigest()[:16],
            "model": self.start.logps_identity(),
            "lora": None if self.training.lora is None else self.training.lora.model_dump(mode="json"),
            "weights": model_digest(self.start),
            "tokenizer": self.table.manifest.facts["tokenizer"],
            "lengths": self.recipe.data.model_dump(include={"max_prompt_length", "max_length", "truncation"}),
            "beta": self.training.beta,
            "train": self._train_settings(half.seed).identity(),
            "zero_stage": self.recipe.deepspeed.zero_stage,
        }

    def _train_settings(self, seed: int) -> TrainSettings:
        training = self.training
        return short_training(
            self.recipe.train, training.learning_rate, training.num_train_epochs, training.global_batch_size, seed
        )

    def _job(self, fit: HalfFit) -> TrainingJob:
        return TrainingJob(
            model=self.start.model_copy(update={"lora": self.training.lora}),
            curriculum=CurriculumSettings(mode="discard_hard"),
            objective=DPO(beta=self.training.beta),
            train=self._train_settings(fit.half.seed),
            deepspeed=self.recipe.deepspeed,
            prepared=storage.absolute(self.table.folder),
            reference=storage.absolute(self.start_folder),
            run=fit.run,
            fingerprint=fit.name,
            card={"recipe": self.recipe.to_dict(), "data": self.table.manifest.model_dump(mode="json")},
            half=fit.half,
        )
