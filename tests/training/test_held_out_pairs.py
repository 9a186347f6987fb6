"""Values of single held-out pairs: what is kept of them, and what is made of two runs on the same pairs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixdpo_ray.errors import StorageError
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.held_out_pairs import AFTER, BEFORE, HeldOutPairs, describe_held_out, matrix
from mixdpo_ray.training.held_out_sets import evaluate_held_out_sets, read_held_out_sets
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import HELD_OUT, make_job


def kept(right: str, ids: str = "abcdefgh") -> HeldOutPairs:
    values = np.array(list(map(float, right)))
    return HeldOutPairs.of(list(ids[: len(right)]), {"rewards/accuracies": values})


def evaluated(world: World, job: TrainingJob) -> tuple[dict[str, float], HeldOutPairs]:
    table = PreparedTable.open(job.prepared)
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    held_out = read_held_out_sets(job, world, table, job.plan(table), policy.rows)
    found = evaluate_held_out_sets(policy, job.objective, held_out, world)
    return found.metrics, found.pairs


def test_every_metric_is_the_mean_of_its_pairs_on_every_rank(tiny: Path, two: Gang, tmp_path: Path) -> None:
    for metrics, pairs in two(evaluated, make_job(tiny, tmp_path)):
        pairs.write(str(tmp_path / AFTER))
        read = HeldOutPairs.read(str(tmp_path / AFTER))
        assert read is not None
        assert len(read.pair_id) == HELD_OUT
        means = [name for name in metrics if not name.startswith(("eval_pairs/", "eval_std/"))]
        assert len(means) > 20
        for name in means:
            found = read.values(name)
            assert found is not None, name
            assert found[1].mean() == pytest.approx(metrics[name], rel=1e-5, abs=1e-6), name
        margins = read.values("eval_rewards/margins")
        assert margins is not None
        assert metrics["eval_std/rewards/margins"] == pytest.approx(margins[1].std(ddof=1), abs=1e-6)


def test_what_is_no_mean_over_pairs_has_no_values() -> None:
    assert kept("10").values("quality") is None
    assert kept("10").values("eval_std/rewards/margins") is None


def test_runs_are_laid_side_by_side_whatever_the_order_of_their_pairs() -> None:
    found = matrix([kept("100", "abc"), kept("001", "cba")], "eval_rewards/accuracies")
    assert found is not None
    assert found[0] == ["a", "b", "c"]
    assert found[1].tolist() == [[1, 0, 0], [1, 0, 0]]


def test_runs_on_other_pairs_and_of_earlier_versions_are_not_laid_side_by_side() -> None:
    assert matrix([kept("10", "ab"), kept("10", "ac")], "eval_rewards/accuracies") is None
    assert matrix([kept("10", "ab"), None], "eval_rewards/accuracies") is None
    assert matrix([], "eval_rewards/accuracies") is None


def test_a_change_is_told_pair_by_pair(tmp_path: Path) -> None:
    """One of eight pairs turns right: the change has a smaller error than two unpaired shares would have."""
    assert describe_held_out(str(tmp_path)) is None
    kept("00001111").write(str(tmp_path / BEFORE))
    kept("00011111").write(str(tmp_path / AFTER))
    described = describe_held_out(str(tmp_path))
    assert described is not None
    assert described["pairs"] == 8
    halves = described["half_intervals"]["eval_rewards/accuracies"]
    assert 0 < halves["change"] < np.hypot(halves["before"], halves["after"])


def test_a_damaged_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / AFTER).write_bytes(b"PAR1 no more")
    with pytest.raises(StorageError, match=r"held_out_after.parquet is damaged: delete it"):
        HeldOutPairs.read(str(tmp_path / AFTER))
