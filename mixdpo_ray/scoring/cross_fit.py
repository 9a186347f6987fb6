"""The validation loss of every pair: short trainings on halves of the data, each of which scores the other half.

A training's scores lie in scores/<fingerprint>/, named by its pairs, model and settings and keyed by pair_id. One that
was cut continues at its checkpoint, and one whose scores are there is not repeated: more seeds cost what they add. The
trained model is deleted once it has scored. All that are missing are trained first, one after the other by one group
of workers, whose room the scoring then takes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.connect import missing_resources, wait_for_resources
from mixdpo_ray.cluster.events import PhaseBegan
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.progress import DisplayInTurn, watching
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_actor import claim_run
from mixdpo_ray.cluster.run_record import SUMMARY
from mixdpo_ray.cluster.run_workers import fit_in_turn
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.difficulty.halves import HalfJob, half_of
from mixdpo_ray.difficulty.implicit_margin import log_ratio_gap
from mixdpo_ray.difficulty.metric import AnswerLogps, Column
from mixdpo_ray.difficulty.validation_loss import ValidationLoss, dpo_loss
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.scoring.reference import logps_pool
from mixdpo_ray.tables.keyed_table import SCORES
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.model_files import model_digest
from mixdpo_ray.training.schedule import check_warmup
from mixdpo_ray.training.settings import CheckpointSettings, EvaluationSettings, ModelSettings, TrainSettings


@dataclass(frozen=True)
class Half:
    """A training on half of the pairs, and what it scores."""

    seed: int
    half: int
    identity: dict[str, Any]
    name: str
    folder: str  # of the scores
    others: NDArray[np.int64]  # the positions that it does not train on

    @property
    def run(self) -> str:
        return storage.join(self.folder, "training")


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
        halves = [self._half(seed, half) for seed in self.metric.split_seeds() for half in (0, 1)]
        with ExitStack() as held:
            for half in sorted(halves, key=lambda half: half.folder):  # so that no two drivers wait for each other
                held.enter_context(exclusive(half.folder))
            titles = {half.name: f"validation loss, training {n} of {len(halves)}" for n, half in enumerate(halves, 1)}
            self._train({titles[half.name]: half for half in halves if self._missing(half)})
            for half in halves:
                logps = self._logps(half, titles[half.name])
                scored = np.concatenate([half.others, train + np.arange(held_out)])
                started = AnswerLogps(self.start_logps.chosen[scored], self.start_logps.rejected[scored])
                total[scored] += dpo_loss(self.metric.beta, log_ratio_gap(logps, started))
                count[scored] += 1
        losses: Column = total / count
        return losses

    def _half(self, seed: int, half: int) -> Half:
        identity = self._identity(seed, half)
        name = fingerprint(identity)
        folder = storage.join(storage.absolute(self.recipe.output.storage_path), SCORES, name)
        return Half(seed, half, identity, name, folder, np.sort(half_of(self._ids("train"), seed, 1 - half)))

    def _ids(self, split: str) -> Sequence[str]:
        return self.table.index(split).pair_id

    def _needed(self, half: Half) -> dict[str, NDArray[np.int64]]:
        return {"train": half.others, "eval": np.arange(self.table.rows("eval"))}

    def _needed_ids(self, half: Half) -> list[str]:
        return [self._ids(split)[position] for split, there in self._needed(half).items() for position in there]

    def _store(self, half: Half) -> ReferenceTable:
        return ReferenceTable.create(half.folder, half.name, {"metric": "validation_loss", **half.identity})

    def _missing(self, half: Half) -> bool:
        return bool(self._store(half).missing(self._needed_ids(half)))

    def _train(self, halves: Mapping[str, Half]) -> None:
        """Those whose models are not there from before a death."""
        jobs = {title: self._job(half) for title, half in halves.items() if not storage.exists(_summary(half))}
        if not jobs:
            return
        steps = {}
        for title, job in jobs.items():
            plan = job.plan(self.table)
            check_warmup(plan, job.train.schedule)
            steps[title] = plan.steps
        run_actors = [claim_run(job.run) for job in jobs.values()]  # all of them: each is a lock inside the cluster
        cluster, queued = self.recipe.cluster, [QueuedJob(job, title) for title, job in jobs.items()]
        with DisplayInTurn(steps) as display:
            wait_for_resources(cluster, lambda text: display.show(PhaseBegan(text)))
            with watching(run_actors[0], display, lambda: missing_resources(cluster, to_start=False)):
                summaries = fit_in_turn(cluster, queued, queued[0].job.run, run_actors[0])
        for title, summary in zip(jobs, summaries, strict=True):
            storage.write_bytes(_summary(halves[title]), json.dumps(summary, indent=2).encode())

    def _logps(self, half: Half, title: str) -> AnswerLogps:
        """Log-probs of the pairs that a half scores, under the model that was trained on the rest."""
        store, ids = self._store(half), self._needed_ids(half)
        if store.missing(ids):
            model: str = json.loads(storage.read_bytes(_summary(half)))["model"]
            trained = self.start.model_copy(update={"path": model, "revision": None})
            actor_pool.cover_positions(
                logps_pool(self.recipe, self.table, trained, title), self.table, store, self._needed(half)
            )
            for part in ("model", "checkpoints", SUMMARY):
                storage.delete(storage.join(half.run, part))
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

    def _job(self, half: Half) -> HalfJob:
        return HalfJob(
            model=self.start.model_copy(update={"lora": self.metric.lora}),
            curriculum=CurriculumSettings(mode="discard_hard"),
            objective=DPO(beta=self.metric.beta),
            train=self._train_settings(half.seed),
            deepspeed=self.recipe.deepspeed,
            prepared=storage.absolute(self.table.folder),
            reference=storage.absolute(self.start_folder),
            run=half.run,
            fingerprint=half.name,
            card={"recipe": self.recipe.to_dict(), "data": self.table.manifest.model_dump(mode="json")},
            seed=half.seed,
            half=half.half,
        )


def _summary(half: Half) -> str:
    return storage.join(half.run, SUMMARY)
