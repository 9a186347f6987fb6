"""A policy that becomes the reference: what is computed, by whom, and that a kill changes nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from transformers import LlamaForCausalLM

from mixdpo_ray.objectives.kto import KTO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training import moving_reference
from mixdpo_ray.training.batch import TokenRows
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.logps import Scorer
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_loop import steps, train, unlike, weights
from tests.training.tiny import _logps_of, make_job

BUCKETS = {"refresh_reference": {"per_bucket": 2}}  # three easy steps of 8, 8 and 6 pairs: refreshed after the first


def job_of(tiny: Path, run: Path, **changes: Any) -> TrainingJob:
    return make_job(tiny, run, **{"curriculum": BUCKETS, **changes})


class Phases(Silent):
    def __init__(self, die_at: str = "never") -> None:
        self.texts: list[str] = []
        self.saved: list[int] = []
        self.die_at = die_at

    def on_phase(self, text: str) -> None:
        self.texts.append(text)

    def on_checkpoint(self, path: str, metrics: dict[str, Any]) -> None:
        self.saved.append(metrics["step"])

    def at_location(self, location: str | None, *, slow: bool = False) -> None:
        if location is not None and self.die_at in location:
            raise InterruptedError(location)


def train_in_pieces(world: World, job: TrainingJob, die_at: str = "never") -> Phases:
    """Four pairs between two appends; perhaps killed there."""
    phases, before = Phases(die_at), moving_reference.PAIRS_AT_ONCE
    moving_reference.PAIRS_AT_ONCE = 4
    try:
        run_training(job, world, listener=phases)
    except InterruptedError:
        dist.barrier()
    finally:
        moving_reference.PAIRS_AT_ONCE = before
    return phases


@pytest.fixture(scope="module")
def finished(tiny: Path, two: Gang, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Phases]]:
    """An undisturbed run without ZeRO's shards of weights, and with them."""
    runs = {zero_stage: tmp_path_factory.mktemp("moving") for zero_stage in (2, 3)}
    return {
        zero_stage: (run, two(train_in_pieces, job_of(tiny, run, zero_stage=zero_stage))[0])
        for zero_stage, run in runs.items()
    }


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_every_bucket_begins_where_policy_and_reference_are_one(
    finished: dict[int, tuple[Path, Phases]], zero_stage: int
) -> None:
    run, phases = finished[zero_stage]
    lines = steps(run)
    assert [abs(line["loss"] - math.log(2)) < 1e-6 for line in lines[:3]] == [True, True, False]
    assert lines[1]["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert lines[1]["logps/chosen_drift"] == pytest.approx(0, abs=1e-5)
    assert [line.get("perf/reference_pairs") for line in lines] == [None, 14, None, None, None], "each pair once"
    assert lines[1]["perf/reference_seconds"] > 0
    assert "reference: 14 pairs by the policy after step 1" in phases.texts
    assert "saving a checkpoint: its model becomes the reference" in phases.texts
    assert phases.saved == [1, 5], "no setting asked for the first one"


def test_the_references_are_log_probs_of_the_policy_at_the_boundary(
    tiny: Path, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, Phases]]
) -> None:
    two(train, make_job(tiny, tmp_path, max_steps=1))
    scorer = Scorer(LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)).eval()
    table, positions = PreparedTable.open(str(tiny / "table")), np.arange(8, 22)
    tokens = TokenRows.of(table.read("train", positions), positions)
    expected = [[float(answer.sum()) for answer in _logps_of(scorer, tokens, int(position))] for position in positions]
    ids = [table.index("train").pair_id[int(position)] for position in positions]
    for run, _ in finished.values():
        store = ReferenceTable.open(str(run / "references" / "step-1"))
        assert store.manifest.pairs == 14
        assert np.allclose(np.stack(store.aligned(ids), 1), expected, rtol=1e-5, atol=1e-5)


def test_adapters_and_foreign_answers_have_references_that_move(tiny: Path, two: Gang, tmp_path: Path) -> None:
    """KTO reads each prompt with foreign answers too, which have references of their own."""
    lora = job_of(tiny, tmp_path / "lora", model={"lora": {"rank": 2, "alpha": 4}})
    two(train, lora)
    assert [abs(line["loss"] - math.log(2)) < 1e-6 for line in steps(lora.run)[:3]] == [True, True, False]
    kto = job_of(tiny, tmp_path / "kto", objective=KTO())
    two(train, kto)
    assert ReferenceTable.open(f"{kto.run}/references/step-1").manifest.pairs == 2 * 14
    assert steps(kto.run)[1]["rewards/margins"] == pytest.approx(0, abs=1e-5)


def test_ranks_that_share_rows_find_the_same_references(
    tiny: Path, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, Phases]]
) -> None:
    job = job_of(tiny, tmp_path, model={"packing": True})
    two(train, replace(job, deepspeed=job.deepspeed.model_copy(update={"sequence_parallel": 2})))
    store, other = (ReferenceTable.open(str(run / "references" / "step-1")) for run in (tmp_path, finished[2][0]))
    assert store.manifest.pairs == 14
    ids = other.rows["pair_id"].to_pylist()
    assert np.allclose(store.aligned(ids), other.aligned(ids), rtol=1e-4, atol=1e-4)


def test_only_the_first_bucket_needs_references_before_training(tiny: Path, tmp_path: Path) -> None:
    table = PreparedTable.open(str(tiny / "table"))
    job = job_of(tiny, tmp_path)
    assert np.flatnonzero(job.reference_positions(job.plan(table))).tolist() == list(range(8))
    assert np.flatnonzero(job.reference_positions(job.plan(table), 1)).tolist() == list(range(8, 22))
    stopped = job_of(tiny, tmp_path, max_steps=2)
    assert np.flatnonzero(stopped.reference_positions(job.plan(table), 1)).tolist() == list(range(8, 16))


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_kill_in_the_middle_of_a_refresh_continues_it_to_the_same_bits(
    tiny: Path, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, Phases]], zero_stage: int
) -> None:
    job = job_of(tiny, tmp_path, zero_stage=zero_stage)
    two(train_in_pieces, job, "the reference after step 1, pair 9 of 14")
    assert len(steps(tmp_path)) == 1
    assert ReferenceTable.open(str(tmp_path / "references" / "step-1")).manifest.pairs in (0, 8)
    continued = two(train_in_pieces, job)[0]
    assert [text for text in continued.texts if text.startswith("reference: ")] in (
        ["reference: 6 pairs by the policy after step 1"],
        ["reference: 14 pairs by the policy after step 1"],  # the checkpoint was not stored yet
    )
    assert unlike(weights(tmp_path), weights(finished[zero_stage][0])) == 0


def test_a_run_continues_inside_a_bucket_with_what_was_computed_at_its_beginning(
    tiny: Path, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, Phases]]
) -> None:
    whole = job_of(tiny, tmp_path)
    saving = whole.train.checkpoints.model_copy(update={"every_steps": 1})
    often = replace(whole, train=whole.train.model_copy(update={"checkpoints": saving}))
    two(train_in_pieces, often, "step 4, waiting for its pairs")
    again = two(train_in_pieces, often)[0]
    assert not [text for text in again.texts if text.startswith("reference: ")]
    assert unlike(weights(tmp_path), weights(finished[2][0])) == 0
