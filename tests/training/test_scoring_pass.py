"""Scores of a model in shards are those of the whole one, and all ranks come to its layers equally often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.scoring_pass import reference_rows
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import make_job


def references(world: World, folder: str, zero_stage: int) -> dict[str, tuple[float, float]]:
    """By the policy of a training, as it stands: what a reference that is computed again comes from."""
    job = make_job(Path(folder), Path(folder) / "run", zero_stage=zero_stage)
    table, policy = PreparedTable.open(job.prepared), make_policy(job.model, job.train, job.deepspeed, world, 0)
    positions = np.array([0, 3, 4, 9, 11, 20, 21])
    with policy.evaluating():
        found = [
            row for rows in reference_rows(policy, table, "train", positions, world, 2, 5) for row in rows.to_pylist()
        ]
    policy.close()
    return {row["pair_id"]: (row["ref_chosen_logp"], row["ref_rejected_logp"]) for row in found}


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_policy_scores_pairs_as_references_did(tiny: Path, two: Gang, zero_stage: int) -> None:
    """Seven pairs in passes of two: one rank has a filler."""
    shares: list[dict[str, Any]] = two(references, str(tiny), zero_stage)
    ids = [PreparedTable.open(str(tiny / "table")).index("train").pair_id[at] for at in (0, 3, 4, 9, 11, 20, 21)]
    assert sorted([*shares[0], *shares[1]]) == sorted(ids)
    chosen, rejected = ReferenceTable.open(str(tiny / "reference")).aligned(ids)
    found = {**shares[0], **shares[1]}
    assert np.allclose([found[one] for one in ids], np.stack([chosen, rejected], 1), rtol=1e-5, atol=1e-5)
