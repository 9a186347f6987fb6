"""Every held-out set of a run: the main one, and further ones, each with metrics of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.tables.held_out_sets import MAIN, held_out_sets
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.evaluation import Evaluation, HeldOut, evaluate_held_out, hard_boundary, read_held_out
from mixdpo_ray.training.held_out_pairs import SET, HeldOutPairs
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.metric_names import of_set
from mixdpo_ray.training.world import World

HeldOutSets = Mapping[str, HeldOut]  # by the name of the set


def read_held_out_sets(job: TrainingJob, world: World, table: PreparedTable, plan: Plan, rows: RowKind) -> HeldOutSets:
    """This rank's share of each set that has pairs."""
    per_device = job.train.evaluation.per_device_eval_batch_size or job.train.per_device_train_batch_size
    boundary, chunk_tokens = hard_boundary(plan, table.index("train")), job.train.logp_chunk_tokens
    tokens, packed, references = job.needs_tokens, rows == "packed", job.reference
    return {
        name: read_held_out(
            table, world, per_device, chunk_tokens, boundary, references, members, tokens=tokens, packed=packed
        )
        for name, members in held_out_sets(table).items()
        if members
    }


@dataclass(frozen=True)
class SetsEvaluation:
    evaluations: Mapping[str, Evaluation]

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the main set first, by their plain names."""
        return {
            of_set(metric, name): value
            for name, evaluation in self.evaluations.items()
            for metric, value in evaluation.metrics.items()
        }

    @property
    def pairs(self) -> HeldOutPairs:
        """The pairs of all sets; each says which it is of, where there are further ones."""
        columns = {name: evaluation.columns for name, evaluation in self.evaluations.items()}
        ids = [pair_id for one in self.evaluations.values() for pair_id in one.held_out.index.pair_id]
        joined = {
            column: np.concatenate([of_set[column] for of_set in columns.values()])
            for column in next(iter(columns.values()))
        }
        if list(columns) != [MAIN]:
            joined[SET] = np.repeat(list(columns), [len(of_set["hard"]) for of_set in columns.values()])
        return HeldOutPairs.of(ids, joined)


def evaluate_held_out_sets(policy: Policy, objective: Objective, sets: HeldOutSets, world: World) -> SetsEvaluation:
    """Collective. The same on every rank."""
    return SetsEvaluation({name: evaluate_held_out(policy, objective, one, world) for name, one in sets.items()})
