"""The reference that steps are trained with: that of the job, until the curriculum makes the policy the next one.

<run>/references/step-<k>/    reference table of the policy after k steps, of the pairs that are trained with it

At such a step every rank scores its share of the bucket's pairs with the policy as it stands, so that no second model
is loaded, and shards need not be put together. Rank 0 appends what all of them found, and a kill in the middle leaves
what was appended. The checkpoint of that step is always saved. Held-out pairs keep the first reference, so that what is
measured on them can be compared over the whole run.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch.distributed as dist

from mixdpo_ray import storage
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.errors import NonFiniteError, PreparedTableError
from mixdpo_ray.objectives.step_objective import reads_mismatched
from mixdpo_ray.tables.mismatched import MISMATCHED, ids_of
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.batch import References
from mixdpo_ray.training.checks_before_training import references_for
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Listener
from mixdpo_ray.training.scoring_pass import reference_rows
from mixdpo_ray.training.world import World

PAIRS_AT_ONCE = 1024  # pairs that are scored between two appends: what a kill can cost


class MovingReference:
    """`current` holds for the step that was prepared last; None where the objective has no reference."""

    def __init__(self, job: TrainingJob, table: PreparedTable, plan: Plan, world: World, start: int):
        """Collective. Continue at step `start`: what policies behind it have said is forgotten."""
        self.job, self.table, self.plan, self.world = job, table, plan, world
        self.since = 0
        self.steps = job.refresh_steps(plan)
        self.current = references_for(job, table, plan)
        if self.steps:
            if world.leads:
                self._forget_after(start)
            dist.barrier()

    def prepare(self, step: int, policy: Policy, listener: Listener) -> dict[str, float]:
        """Collective. See to the references of this step; what a refresh took, as metrics."""
        since = max((refreshed for refreshed in self.steps if refreshed <= step), default=0)
        if since == self.since:
            return {}
        began = time.perf_counter()
        splits = ("train", MISMATCHED) if reads_mismatched(self.job.objective) else ("train",)
        if self.world.leads:
            ReferenceTable.create(self._folder(since), f"{self.job.fingerprint} after step {since}")
        pairs = sum(self._cover(split, since, step, policy, listener) for split in splits)
        dist.barrier()  # the last part is there
        index, foreign = self.table.index("train"), reads_mismatched(self.job.objective)
        self.since, self.current = since, References.of(self._folder(since), index, mismatched=foreign)
        if not pairs:
            return {}
        return {"perf/reference_pairs": float(pairs), "perf/reference_seconds": time.perf_counter() - began}

    def _cover(self, split: str, since: int, step: int, policy: Policy, listener: Listener) -> int:
        """Score what is missing of a bucket; how many pairs that were."""
        missing = self._missing(split, since)
        if len(missing) and since < step:
            raise PreparedTableError(
                f"{self._folder(since)} lacks {len(missing)} pairs, and the policy after step {since} is no more: "
                f"remove the checkpoints after step-{since}, and the same command continues there"
            )
        if len(missing) and self.world.leads:
            listener.on_phase(f"reference: {len(missing):,} pairs by the policy after step {since}")
        for first in range(0, len(missing), PAIRS_AT_ONCE):
            where = f"the reference after step {since}, pair {first + 1} of {len(missing)}"
            listener.at_location(where, slow=True)
            self._score(split, missing[first : first + PAIRS_AT_ONCE], since, policy)
        return len(missing)

    def _missing(self, split: str, since: int) -> Any:
        """Positions, as rank 0 finds them: the others might see what it has appended meanwhile."""
        found: list[Any] = [None]
        if self.world.leads:
            positions = np.flatnonzero(self.job.reference_positions(self.plan, since))
            ids = ids_of(self.table, split, positions)
            absent = set(ReferenceTable.open(self._folder(since)).missing(ids))
            found = [positions[[one in absent for one in ids]]] if absent else [positions[:0]]
        dist.broadcast_object_list(found)
        return found[0]

    def _score(self, split: str, positions: Any, since: int, policy: Policy) -> None:
        train = self.job.train
        per_device = train.evaluation.per_device_eval_batch_size or train.per_device_train_batch_size
        with policy.evaluating():
            mine = list(
                reference_rows(policy, self.table, split, positions, self.world, per_device, train.logp_chunk_tokens)
            )
        everyone: list[list[pa.Table]] = [mine] * self.world.size
        dist.all_gather_object(everyone, mine)
        rows = pa.concat_tables([part for parts in everyone for part in parts])
        if not all(np.isfinite(rows[name].to_numpy()).all() for name in ReferenceTable.own_columns):
            raise NonFiniteError(f"the policy after step {since} gives log-probs that are not finite, as a reference")
        if self.world.leads:
            ReferenceTable.open(self._folder(since)).append(rows)

    def _folder(self, since: int) -> str:
        return storage.join(self.job.run, "references", f"step-{since}")

    def _forget_after(self, start: int) -> None:
        for since in self.steps:
            if since > start:
                storage.delete(self._folder(since))
