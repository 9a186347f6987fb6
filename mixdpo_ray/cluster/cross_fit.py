"""The validation loss of every pair: short trainings on halves of the data, each of which scores the other half.

A training's scores lie in scores/<fingerprint>/, named by its pairs, model and settings and keyed by pair_id. One that
was cut continues at its checkpoint, and one whose scores are there is not repeated: more seeds cost what they add. The
trained model is deleted once it has scored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.board import take_board
from mixdpo_ray.cluster.connect import missing_resources, wait_for_resources
from mixdpo_ray.cluster.fit import fit
from mixdpo_ray.cluster.prepared_folder import alone
from mixdpo_ray.cluster.progress import Display, watching
from mixdpo_ray.cluster.reference import logps_pool
from mixdpo_ray.cluster.run_folder import SUMMARY
from mixdpo_ray.cluster.training_job import absolute
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.difficulty.halves import HalfJob, half_of
from mixdpo_ray.difficulty.implicit_margin import log_ratio_gap
from mixdpo_ray.difficulty.metric import AnswerLogps, Column
from mixdpo_ray.difficulty.validation_loss import ValidationLoss, dpo_loss
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.pairs.keyed_table import SCORES
from mixdpo_ray.pairs.reference_table import ReferenceTable
from mixdpo_ray.pairs.table import PreparedTable
from mixdpo_ray.recipe import Recipe, fingerprint
from mixdpo_ray.training.model_files import model_digest
from mixdpo_ray.training.schedule import check_warmup
from mixdpo_ray.training.settings import CheckpointSettings, EvaluationSettings, ModelSettings, TrainSettings


@dataclass(frozen=True)
class CrossFit:
    recipe: Recipe
    table: PreparedTable
    metric: ValidationLoss
    start: ModelSettings  # of every training, and the reference of its loss
    start_folder: str  # of its log-probs
    start_logps: AnswerLogps  # of all training pairs and then all held-out ones

    def losses(self) -> Column:
        """[train pairs, then held-out pairs], each the mean over the models that have not seen the pair."""
        train, held_out = self.table.rows("train"), self.table.rows("eval")
        total, count = np.zeros(train + held_out), np.zeros(train + held_out)
        trainings = [(seed, half) for seed in self.metric.split_seeds() for half in (0, 1)]
        for number, (seed, half) in enumerate(trainings, 1):
            others = np.sort(half_of(self._ids("train"), seed, 1 - half))
            logps = self._logps(seed, half, others, f"validation loss, training {number} of {len(trainings)}")
            scored = np.concatenate([others, train + np.arange(held_out)])
            started = AnswerLogps(self.start_logps.chosen[scored], self.start_logps.rejected[scored])
            total[scored] += dpo_loss(self.metric.beta, log_ratio_gap(logps, started))
            count[scored] += 1
        losses: Column = total / count
        return losses

    def _ids(self, split: str) -> Sequence[str]:
        return self.table.index(split).pair_id

    def _logps(self, seed: int, half: int, others: NDArray[np.int64], title: str) -> AnswerLogps:
        """Of the pairs at `others` and of the held-out ones, under the model that was trained on the rest."""
        content = self._identity(seed, half)
        name = fingerprint(content)
        folder = storage.join(absolute(self.recipe.output.storage_path), SCORES, name)
        needed = {"train": others, "eval": np.arange(self.table.rows("eval"))}
        ids = [self._ids(split)[position] for split, positions in needed.items() for position in positions]
        with alone(folder):
            store = ReferenceTable.create(folder, name, {"metric": "validation_loss", **content})
            if store.missing(ids):
                job = self._job(storage.join(folder, "training"), name, seed, half)
                trained = self._trained(job, title)
                actor_pool.cover(logps_pool(self.recipe, self.table, trained, title), self.table, store, needed)
                for part in ("model", "checkpoints", SUMMARY):
                    storage.delete(storage.join(job.run, part))
        chosen, rejected = store.aligned(ids)
        return AnswerLogps(chosen.astype(np.float64), rejected.astype(np.float64))

    def _identity(self, seed: int, half: int) -> dict[str, Any]:
        ids = self._ids("train")
        trained = sorted(ids[position] for position in half_of(ids, seed, half))
        train = self._train_settings(seed).model_dump(mode="json", exclude={"evaluation", "checkpoints", "max_steps"})
        return {
            "pairs": hashlib.sha256("".join(trained).encode()).hexdigest()[:16],
            "model": self.start.model_dump(mode="json", exclude={"path", "tokenizer", "chat_template"}),
            "lora": None if self.metric.lora is None else self.metric.lora.model_dump(mode="json"),
            "weights": model_digest(self.start),
            "tokenizer": self.table.manifest.facts["tokenizer"],
            "lengths": self.recipe.data.model_dump(include={"max_prompt_length", "max_length", "truncation"}),
            "beta": self.metric.beta,
            "train": train,
            "zero_stage": self.recipe.deepspeed.zero_stage,
        }

    def _train_settings(self, seed: int) -> TrainSettings:
        train, metric = self.recipe.train, self.metric
        return train.model_copy(
            update={
                "optimizer": train.optimizer.model_copy(update={"learning_rate": metric.learning_rate}),
                "num_train_epochs": metric.num_train_epochs,
                "global_batch_size": metric.global_batch_size or train.global_batch_size,
                "seed": seed,
                "max_steps": None,
                "evaluation": EvaluationSettings(
                    per_device_eval_batch_size=train.evaluation.per_device_eval_batch_size
                ),
                "checkpoints": CheckpointSettings(every_steps=train.checkpoints.every_steps, keep_last=1),
            }
        )

    def _job(self, run: str, name: str, seed: int, half: int) -> HalfJob:
        return HalfJob(
            model=self.start.model_copy(update={"lora": self.metric.lora}),
            curriculum=CurriculumSettings(mode="discard_hard"),
            objective=DPO(beta=self.metric.beta),
            train=self._train_settings(seed),
            deepspeed=self.recipe.deepspeed,
            prepared=absolute(self.table.folder),
            reference=absolute(self.start_folder),
            run=run,
            fingerprint=name,
            card={"recipe": self.recipe.to_dict(), "data": self.table.manifest.model_dump(mode="json")},
            seed=seed,
            half=half,
        )

    def _trained(self, job: HalfJob, title: str) -> ModelSettings:
        """The model that this training leaves, which may be there from before a death."""
        path = storage.join(job.run, SUMMARY)
        if not storage.exists(path):
            plan, cluster = job.plan(self.table), self.recipe.cluster
            check_warmup(plan, job.train.schedule)
            board, display = take_board(job.run), Display(title, plan.steps)
            wait_for_resources(cluster, lambda text: display.show("phase", text))
            with watching(board, display, lambda: missing_resources(cluster, to_start=False)):
                summary = fit(cluster, job, board)
            storage.write_bytes(path, json.dumps(summary, indent=2).encode())
        model: str = json.loads(storage.read_bytes(path))["model"]
        return self.start.model_copy(update={"path": model, "revision": None})
