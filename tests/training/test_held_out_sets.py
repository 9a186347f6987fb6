"""Named held-out sets: each is judged by itself, and the main one as if there were no other."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.runs.summary import RunReport
from mixdpo_ray.tables.held_out_sets import MAIN, SET_ROWS, held_out_sets
from mixdpo_ray.tables.prepared_table import PreparedTable, commit
from mixdpo_ray.training.checkpoints import best_step
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.held_out_pairs import AFTER, HeldOutPairs
from mixdpo_ray.training.held_out_sets import evaluate_held_out_sets, read_held_out_sets
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.metric_names import of_set, set_and_metric
from mixdpo_ray.training.metrics import read_lines
from mixdpo_ray.training.run_picture import draw_curves
from mixdpo_ray.training.settings import CheckpointSettings
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import HELD_OUT, make_job

SETS = {"code": 3, "math-2": 2}


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world, of whose held-out pairs the last ones are those of two sets."""
    folder = tmp_path_factory.mktemp("sets")
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    table = PreparedTable.open(str(folder / "table"))
    commit(table.folder, table.manifest.model_copy(update={"facts": {SET_ROWS: SETS}}))
    return folder


def apart(folder: Path) -> TrainingJob:
    """Its reference is another model than its policy."""
    return replace(make_job(folder, folder / "unused"), reference=str(folder / "apart"))


def evaluated(world: World, job: TrainingJob) -> tuple[dict[str, float], HeldOutPairs]:
    table = PreparedTable.open(job.prepared)
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    held_out = read_held_out_sets(job, world, table, job.plan(table), policy.rows)
    found = evaluate_held_out_sets(policy, job.objective, held_out, world)
    return found.metrics, found.pairs


def test_each_set_has_the_means_of_its_own_pairs_on_every_rank(tiny: Path, folder: Path, two: Gang) -> None:
    whole, _ = two(evaluated, apart(tiny))[0]
    for metrics, pairs in two(evaluated, apart(folder)):
        assert pairs.sets == ["", *SETS]
        counts = {MAIN: HELD_OUT - sum(SETS.values()), **SETS}
        for plain in ("eval_loss", "eval_rewards/margins", "eval_nll/chosen"):
            means = [metrics[of_set(plain, name)] for name in counts]
            assert np.average(means, weights=list(counts.values())) == pytest.approx(whole[plain], rel=1e-6)
            assert means[0] != pytest.approx(whole[plain], rel=1e-6)
        for name, count in counts.items():
            assert sum(value for key, value in metrics.items() if key.startswith(of_set("eval_pairs/", name))) == count
        means_of_pairs = [name for name in metrics if "eval_pairs" not in name and "_pairs/" not in name]
        for name in means_of_pairs:
            if "std/" not in name:
                found = pairs.values(name)
                assert found is not None, name
                assert found[1].mean() == pytest.approx(metrics[name], rel=1e-5, abs=1e-6), name


def train(world: World, job: TrainingJob) -> dict[str, Any]:
    return run_training(job, world)


def test_a_run_tells_of_each_set_and_keeps_the_best_checkpoint_by_one(folder: Path, tmp_path: Path, two: Gang) -> None:
    best = CheckpointSettings(every_steps=2, keep_last=1, keep_best="eval_code_loss")
    job = make_job(folder, tmp_path / "run", checkpoints=best, max_steps=4)
    summary = two(train, job)[0]
    evaluations = [line for line in read_lines(str(tmp_path / "run" / "metrics.jsonl")) if line.get("kind") == "eval"]
    losses = {line["step"]: line["eval_code_loss"] for line in evaluations if line["step"]}
    assert best_step(str(tmp_path / "run" / "checkpoints"), "eval_code_loss") == min(losses, key=losses.__getitem__)
    assert summary["held_out"]["sets"] == SETS
    assert summary["held_out"]["pairs"] == HELD_OUT - 5
    assert summary["held_out"]["half_intervals"]["eval_math-2_rewards/margins"]["change"] is not None
    told = RunReport("run", {**summary, "seconds": 1.0}).describe()
    assert "held-out preference accuracy (code) " in told
    assert " of 3 pairs (" in told
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "## 4 held-out pairs\n" in card
    assert "## 3 held-out pairs: code\n" in card
    draw_curves(str(tmp_path / "run"))
    kept = HeldOutPairs.read(str(tmp_path / "run" / AFTER))
    assert kept is not None
    assert len(kept.pair_id) == HELD_OUT


def test_a_table_without_sets_has_the_main_one_alone(tiny: Path) -> None:
    assert held_out_sets(PreparedTable.open(str(tiny / "table"))) == {MAIN: range(HELD_OUT)}


def test_the_name_of_a_set_is_found_in_metrics_and_nothing_else_is_taken_for_one() -> None:
    for name in ("code", "math-2", "a_b"):
        for plain in ("eval_loss", "eval_rewards/accuracies/margin_0-0.5", "eval_logps/chosen_drift"):
            assert set_and_metric(of_set(plain, name)) == (name, plain)
    for other in ("eval_loss", "eval_logps/chosen_drift", "judge/win_rate", "eval_reward", "loss", "eval__loss"):
        assert set_and_metric(other) == ("", other)


def test_references_of_further_sets_are_read(folder: Path, tmp_path: Path) -> None:
    job = make_job(folder, tmp_path)
    table = PreparedTable.open(job.prepared)
    for name, one in read_held_out_sets(job, World(), table, job.plan(table), "grouped").items():
        assert one.references is not None
        assert not np.isnan(one.references.chosen).any(), name
