"""What happens to pairs that an objective has no loss for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.odpo import ODPO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import EASY, HARD, make_job

NOTHING_HARD = {"threshold": {"hard_count": 0}}


@pytest.mark.parametrize("mode", ["two_stage", "router", "discard_hard"])
def test_ties_go_where_hard_pairs_go_although_the_threshold_calls_them_easy(
    tiny: Path, tmp_path: Path, mode: str
) -> None:
    table = PreparedTable.open(str(tiny / "table"))
    curriculum = {"mode": mode, **NOTHING_HARD}
    assert not make_job(tiny, tmp_path, objective=DPO(), curriculum=curriculum).hard(table).any()
    hard = make_job(tiny, tmp_path, objective=ODPO(), curriculum=curriculum).hard(table)
    assert np.flatnonzero(hard).tolist() == list(range(EASY, EASY + HARD))


def test_a_mode_that_routes_nothing_refuses_ties_with_their_number(tiny: Path, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, objective=ODPO(), curriculum={"mode": "sorted_dpo"})
    with pytest.raises(RecipeError, match="ODPO has no loss for ties, 10 of 32 pairs, and"):
        job.hard(PreparedTable.open(str(tiny / "table")))


def run(world: World, tiny: Path, folder: Path) -> list[float]:
    job = make_job(tiny, folder, objective=ODPO(), curriculum={"mode": "router", **NOTHING_HARD})
    last = run_training(job, world)["last_step"]
    return [last[name] for name in ("pairs/easy", "pairs/hard", "loss")]


def test_a_run_over_ties_trains_them_by_sft(tiny: Path, one: Gang, tmp_path: Path) -> None:
    """The last of four windows holds ties only: the mean of their losses is that of SFT."""
    ((easy, hard, loss),) = one(run, tiny, tmp_path / "run")
    assert (easy, hard) == (0, 8)
    assert 0 < loss < 10
