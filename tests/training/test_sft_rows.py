"""Training with rows of data.sft: they take the SFT loss and count as no pair."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mixdpo_ray.cluster.stream import _read
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.runs.summary import RunReport
from mixdpo_ray.tables.prepared_table import PreparedTable, SplitFacts, commit, index_rows, write_index, write_part
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.tables.trained_rows import SFT_SPLIT, read_trained, trained_index
from mixdpo_ray.training.first_stage import first_stage
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.metrics import read_lines
from mixdpo_ray.training.run_picture import draw_curves
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import EASY, HARD, make_job, make_rows

ROWS = 6
APART = {"reference": "apart"}  # another model than the policy


@pytest.fixture(scope="module")
def folder(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world with six rows of one answer."""
    folder = tmp_path_factory.mktemp("sft")
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    store = str(folder / "table")
    rows = make_rows(np.random.default_rng(7), np.zeros(ROWS), "c")
    empty = pa.array([[]] * ROWS, pa.list_(pa.int32()))
    rows = rows.set_column(rows.column_names.index("rejected_ids"), "rejected_ids", empty)
    write_part(store, SFT_SPLIT, rows)
    write_index(store, SFT_SPLIT, index_rows(rows))
    manifest = PreparedTable.open(store).manifest
    splits = {**manifest.splits, SFT_SPLIT: SplitFacts(rows=ROWS, first_positions=(0,))}
    counts = {"rows_in": manifest.rows_in + ROWS, "rows_kept": manifest.rows_kept + ROWS}
    commit(store, manifest.model_copy(update={"splits": splits, **counts}))
    return folder


def train(world: World, job: TrainingJob) -> dict[str, Any]:
    return run_training(job, world)


def steps(run: Path) -> list[dict[str, Any]]:
    return [dict(line) for line in read_lines(str(run / "metrics.jsonl")) if "kind" not in line]


@pytest.mark.parametrize("mode", ["two_stage", "router"])
def test_rows_are_trained_among_hard_pairs_and_counted_apart(
    mode: str, folder: Path, tmp_path: Path, one: Gang, two: Gang
) -> None:
    curriculum = {"mode": mode}
    summary = one(train, make_job(folder, tmp_path / "one", curriculum=curriculum))[0]
    two(train, make_job(folder, tmp_path / "two", curriculum=curriculum))
    lines, others = steps(tmp_path / "one"), steps(tmp_path / "two")
    assert sum(line.get("rows/sft", 0) for line in lines) == ROWS == summary["sft_rows"]
    assert sum(line["pairs/hard"] for line in lines) == HARD
    assert sum(line["pairs/easy"] for line in lines) == EASY
    assert summary["pairs"] == EASY + HARD
    for mine, theirs in zip(lines, others, strict=True):
        assert mine["window_hash"] == theirs["window_hash"]
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    told = RunReport("run", {**summary, "seconds": 1.0}).describe()
    assert f"{EASY + HARD} pairs, {ROWS} rows of data.sft" in told
    card = (tmp_path / "one" / "model" / "README.md").read_text()
    assert f"- rows of prompts with one good answer, by SFT: {ROWS}\n" in card
    assert f"- pairs: {EASY + HARD} trained ({EASY} easy, {HARD} hard)" in card
    draw_curves(str(tmp_path / "one"))


def test_the_sft_loss_of_a_step_is_that_of_its_hard_pairs_and_rows(folder: Path, tmp_path: Path, one: Gang) -> None:
    """With every pair easy, a step of rows alone has a loss and no margin."""
    easy = {"threshold": {"hard_count": 0}}
    job = make_job(folder, tmp_path / "run", objective=SimPO(), curriculum=easy, global_batch_size=6)
    assert job.objective.takes_ties
    one(train, job)
    last = steps(tmp_path / "run")[-1]
    assert (last["stage"], last["rows/sft"], last["pairs/easy"], last["pairs/hard"]) == ("hard", ROWS, 0, 0)
    assert last["loss"] == last["loss/hard"] > 0
    assert "data_margin/min" not in last
    assert "rewards/accuracies" not in last
    draw_curves(str(tmp_path / "run"))


def test_rows_take_the_sft_loss_beside_hard_pairs_that_are_trained_as_ties(
    folder: Path, tmp_path: Path, one: Gang, two: Gang
) -> None:
    for name, gang in (("one", one), ("two", two)):
        job = make_job(folder, tmp_path / name, curriculum={"hard_objective": "todo", "sft_weight": 0.5})
        gang(train, replace(job, reference=str(folder / "apart"), model=job.model.model_copy(update=APART)))
    lines, others = steps(tmp_path / "one"), steps(tmp_path / "two")
    hard = [line for line in lines if line["stage"] == "hard"]
    assert sum(line["rows/sft"] for line in hard) == ROWS
    for line in hard:  # each pair and each row counts alike, but for the weight of SFT
        pairs, rows = line["pairs/hard"], line["rows/sft"]
        mean = (pairs * line["loss/hard"] + 0.5 * rows * line["loss/sft"]) / (pairs + rows)
        assert line["loss"] == pytest.approx(mean, rel=1e-5)
    for mine, theirs in zip(lines, others, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert mine["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)


def test_a_stage_of_rows_alone_is_compared_with_no_reference(folder: Path, tmp_path: Path, one: Gang) -> None:
    """The reference becomes the policy behind it, so that nobody ever needs the one of before."""
    first = {"threshold": {"hard_count": 0}, "order": "ascending", "refresh_reference": "per_stage"}
    job = make_job(folder, tmp_path / "run", curriculum=first)
    ids = list(PreparedTable.open(job.prepared).index("eval").pair_id)
    held_out = zip(ReferenceTable.own_columns, ReferenceTable.open(str(job.reference)).aligned(ids), strict=True)
    store = ReferenceTable.create(str(tmp_path / "held_out"), "tiny")
    store.append(pa.table({"pair_id": ids, **dict(held_out)}))
    one(train, replace(job, reference=store.folder))


def test_the_weight_of_rows_beside_ties_makes_another_first_stage(folder: Path, tmp_path: Path) -> None:
    table = PreparedTable.open(str(folder / "table"))
    ties = {"mode": "router", "hard_objective": "todo"}
    jobs = [make_job(folder, tmp_path, curriculum={**ties, "sft_weight": weight}) for weight in (1.0, 2.0)]
    assert len({first_stage(job, table, "stages").fingerprint for job in jobs}) == 2


def test_rows_lie_behind_the_pairs_and_are_read_by_position(folder: Path) -> None:
    table = PreparedTable.open(str(folder / "table"))
    index, pairs = trained_index(table), EASY + HARD
    assert len(index) == pairs + ROWS
    assert trained_index(table) is index
    assert index.rejected_length[pairs:].tolist() == [0] * ROWS
    assert [index.pair_id[pairs + 1], index.pair_id[0]] == ["c" + f"{1:031x}", "a" + f"{0:031x}"]
    wanted = np.array([3, pairs - 1, pairs, pairs + 4])
    rows = read_trained(table, wanted)
    assert rows["pair_id"].to_pylist() == [index.pair_id[position] for position in wanted]
    assert rows["position"].to_pylist() == wanted.tolist()
    first, second = _read(table.folder, [np.array([5, pairs + 2]), np.array([4, pairs + 1])])
    assert [*first["position"].to_pylist(), *second["position"].to_pylist()] == [5, pairs + 2, 4, pairs + 1]
