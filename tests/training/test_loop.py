"""Whole runs on a tiny world: what they write, how they continue, and what stops them."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.checkpoint_writer import CheckpointWriter
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import CheckpointSettings, EvaluationSettings
from mixdpo_ray.training.windows import read_windows
from mixdpo_ray.training.world import World
from tests.training.gang import EXTENSION, Gang
from tests.training.tiny import make_job


def train(world: World, job: TrainingJob) -> dict[str, Any]:
    return run_training(job, world)


def train_until(world: World, job: TrainingJob, stop: int, *, at_once: bool = True) -> None:
    """As if killed in the middle of step `stop`, with every checkpoint before it in place, or on its way."""

    def windows(
        table: PreparedTable, plan: Plan, world: World, kind: RowKind, first_step: int, last_step: int
    ) -> Iterator[pa.Table]:
        yield from read_windows(table, plan, world, kind, first_step, stop)
        raise InterruptedError(f"killed in step {stop}")

    try:
        with stored_at_once() if at_once else nullcontext():
            run_training(job, world, windows)
    except InterruptedError:
        dist.barrier()


@contextmanager
def stored_at_once() -> Iterator[None]:
    """Let every checkpoint count before its step ends, while the body runs: what a kill finds hangs on no clock."""
    usual = CheckpointWriter.save
    with patch.object(CheckpointWriter, "save", partialmethod(usual, waits=True)):
        yield


def lines(run: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]


def steps(run: str | Path) -> list[dict[str, Any]]:
    return [line for line in lines(run) if line.get("kind") != "eval"]


def weights(run: str | Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(Path(run) / "model" / "model.safetensors")
    return found


def unlike(mine: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    """Largest difference of any weight."""
    return max(float((mine[name] - truth[name]).abs().max()) for name in truth)


@pytest.fixture(scope="module")
def finished(tiny: Path, two: Gang, tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, dict[str, Any]]]:
    """An undisturbed run of each ZeRO stage, and its summary."""
    root, runs = tmp_path_factory.mktemp("finished"), {}
    for zero_stage in range(4):
        run = root / str(zero_stage)
        runs[zero_stage] = (run, two(train, make_job(tiny, run, zero_stage=zero_stage))[0])
    return runs


def test_the_first_dpo_step_costs_ln_2(finished: dict[int, tuple[Path, dict[str, Any]]]) -> None:
    for run, _ in finished.values():
        assert steps(run)[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
        assert steps(run)[0]["logps/chosen_drift"] == pytest.approx(0, abs=1e-5)
        assert lines(run)[0]["eval_loss"] == pytest.approx(0.693147, abs=1e-6)


def test_a_run_leaves_one_line_per_step_and_evaluates_before_and_after(
    finished: dict[int, tuple[Path, dict[str, Any]]],
) -> None:
    """22 easy and 10 hard pairs in windows of 8."""
    run, summary = finished[2]
    found = lines(run)
    assert [(line.get("kind"), line["step"]) for line in found] == [
        ("eval", 0), (None, 0), (None, 1), (None, 2), (None, 3), (None, 4), ("eval", 5),
    ]  # fmt: skip
    trained = steps(run)
    assert [line["stage"] for line in trained] == ["easy"] * 3 + ["hard"] * 2
    assert [(line["pairs/easy"], line["pairs/hard"]) for line in trained] == [(8, 0), (8, 0), (6, 0), (0, 8), (0, 2)]
    assert [line["epoch"] for line in trained] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert trained[0]["data_margin/max"] == 3.0
    assert trained[2]["data_margin/min"] == 0.5
    assert summary["steps"] == 5
    assert summary["pairs"] == 32
    assert summary["eval_before"]["eval_loss"] == found[0]["eval_loss"]
    assert summary["eval_after"]["eval_loss"] == found[-1]["eval_loss"]


def builds(world: World) -> tuple[str, str | None]:
    """The name of the extension that DeepSpeed knows for CPU, and a compiler for it."""
    from deepspeed.ops.op_builder import ShareMemCommBuilder

    return ShareMemCommBuilder().name, shutil.which("g++")


def test_nothing_is_compiled(finished: dict[int, tuple[Path, dict[str, Any]]], two: Gang) -> None:
    """Every stage was trained without a compiler, and beside a lock that nobody will ever release."""
    assert two(builds) == [(EXTENSION, None)] * 2
    assert [path for path in two.extensions.rglob("*") if path.is_file()] == [two.extensions / EXTENSION / "lock"]


def imports_the_compiler(world: World) -> bool:
    return "torch._inductor.compile_fx" in sys.modules


def test_training_by_adamw_never_imports_torchs_compiler(tiny: Path, tmp_path: Path) -> None:
    """In a process of its own: other optimizers, which are trained by in the others, bring it along."""
    gang = Gang(1)
    try:
        gang(train, make_job(tiny, tmp_path, zero_stage=2, max_steps=2))
        assert gang(imports_the_compiler) == [False]
    finally:
        gang.close()


def test_metrics_have_the_names_that_people_know(finished: dict[int, tuple[Path, dict[str, Any]]]) -> None:
    easy, hard = steps(finished[2][0])[1], steps(finished[2][0])[3]
    for name in ("loss", "learning_rate", "grad_norm", "epoch", "logps/chosen", "window_hash", "perf/pairs_per_second"):
        assert name in easy
        assert name in hard
    for name in ("logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "loss/easy"):
        assert name in easy
        assert name not in hard
    assert easy["rewards/margins"] == pytest.approx(easy["rewards/chosen"] - easy["rewards/rejected"])
    assert hard["loss"] == hard["loss/hard"] > 0


def test_the_zero_stages_end_with_the_same_weights(finished: dict[int, tuple[Path, dict[str, Any]]]) -> None:
    for zero_stage in (1, 2, 3):
        assert unlike(weights(finished[zero_stage][0]), weights(finished[0][0])) < 2e-6


def test_the_exported_folder_loads_and_has_learnt(tiny: Path, finished: dict[int, tuple[Path, dict[str, Any]]]) -> None:
    for run, _ in finished.values():
        model = AutoModelForCausalLM.from_pretrained(run / "model", dtype=torch.float32)
        assert AutoTokenizer.from_pretrained(run / "model").eos_token == "w2"
        prompt = torch.tensor([[5, 6, 7]])
        start = AutoModelForCausalLM.from_pretrained(tiny / "model", dtype=torch.float32)
        assert not torch.allclose(model(prompt).logits, start(prompt).logits, atol=1e-3)
        assert model.config.use_cache
        assert "easy pairs, supervised fine-tuning on" in (run / "model" / "README.md").read_text()


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_a_killed_run_continues_to_the_same_bits(
    tiny: Path, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, dict[str, Any]]], zero_stage: int
) -> None:
    """Killed in step 3 with a checkpoint after step 2: the third step, and the change of stage, are done again."""
    job = make_job(tiny, tmp_path, zero_stage=zero_stage, checkpoints=CheckpointSettings(every_steps=2))
    two(train_until, job, 3)
    assert [line["step"] for line in steps(tmp_path)] == [0, 1, 2]
    summary = two(train, job)[0]
    truth, true_summary = finished[zero_stage]
    assert unlike(weights(tmp_path), weights(truth)) == 0
    assert summary["eval_before"] == true_summary["eval_before"]
    assert summary["eval_after"] == true_summary["eval_after"]
    for mine, theirs in zip(steps(tmp_path), steps(truth), strict=True):
        same = [name for name in theirs if not name.startswith("perf/")]
        assert {name: mine[name] for name in same} == {name: theirs[name] for name in same}


@pytest.mark.parametrize(("zero_stage", "size"), [(0, 2), (2, {"tokens": 40}), (3, {"tokens": 40})])
def test_a_killed_run_of_packed_rows_continues_to_the_same_bits(
    tiny: Path, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, dict[str, Any]]], zero_stage: int, size: Any
) -> None:
    """It begins at ln 2 with references from padded rows, and ends near the weights of those."""
    packed: dict[str, Any] = {"model": {"packing": True}, "per_device_train_batch_size": size}
    whole = make_job(tiny, tmp_path / "whole", zero_stage=zero_stage, **packed)
    two(train, whole)
    train_settings = whole.train.model_copy(update={"checkpoints": CheckpointSettings(every_steps=2)})
    killed = replace(whole, run=str(tmp_path / "killed"), train=train_settings)
    two(train_until, killed, 3)
    two(train, killed)
    assert unlike(weights(killed.run), weights(whole.run)) == 0
    assert unlike(weights(killed.run), weights(finished[zero_stage][0])) < 2e-6
    first = steps(killed.run)[0]
    assert first["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert first["perf/padding_fraction"] == 0 < first["perf/shared_fraction"] < 0.5
    assert "packed" not in Path(killed.run, "model", "config.json").read_text()


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_a_run_continues_with_another_number_of_workers(
    tiny: Path, one: Gang, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, dict[str, Any]]], zero_stage: int
) -> None:
    """Two workers, then one, then two again. Adam makes more of the last bits of small gradients."""
    job = make_job(tiny, tmp_path, zero_stage=zero_stage, checkpoints=CheckpointSettings(every_steps=1))
    two(train_until, job, 2)
    one(train_until, job, 4)
    two(train, job)
    assert unlike(weights(tmp_path), weights(finished[zero_stage][0])) < 2e-6
    hashes = [[line["window_hash"] for line in steps(run)] for run in (tmp_path, finished[zero_stage][0])]
    assert hashes[0] == hashes[1]


def test_a_finished_run_trains_nothing_more(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path)
    first, before = two(train, job)[0], weights(tmp_path)
    again = two(train, job)[0]
    assert unlike(weights(tmp_path), before) == 0
    assert len(steps(tmp_path)) == 5
    assert again["eval_after"] == first["eval_after"]


def test_max_steps_stops_early_and_leaves_the_schedule(
    tiny: Path, two: Gang, tmp_path: Path, finished: dict[int, tuple[Path, dict[str, Any]]]
) -> None:
    two(train, make_job(tiny, tmp_path, max_steps=2))
    rates = [[line["learning_rate"] for line in steps(run)] for run in (tmp_path, finished[2][0])]
    assert rates[0] == rates[1][:2]
    two(train, make_job(tiny, tmp_path))
    assert unlike(weights(tmp_path), weights(finished[2][0])) == 0


def test_an_objective_without_a_reference_reads_none(tiny: Path, one: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, objective=SimPO(), evaluation=EvaluationSettings(every_steps=2))
    one(train, job)
    assert [line["step"] for line in lines(tmp_path) if line.get("kind") == "eval"] == [0, 2, 4, 5]
    assert not any("logps/chosen_drift" in line for line in steps(tmp_path))
    assert not any(name.startswith("eval_logps/chosen_drift") for name in lines(tmp_path)[0])


@pytest.mark.parametrize("packing", [False, True])
def test_bfloat16_trains_in_every_stage(tiny: Path, two: Gang, tmp_path: Path, *, packing: bool) -> None:
    for zero_stage in range(4):
        job = make_job(
            tiny, tmp_path / str(zero_stage), zero_stage=zero_stage,
            model={"dtype": "bfloat16", "reference_tolerance": 0.5, "packing": packing},
        )  # fmt: skip
        two(train, job)
        assert steps(tmp_path / str(zero_stage))[0]["loss"] == pytest.approx(0.693147, abs=0.02)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(("zero_stage", "packing"), [(0, False), (2, False), (3, False), (2, "auto"), (3, "auto")])
def test_adapters_are_trained_merged_and_resumed(
    tiny: Path, two: Gang, tmp_path: Path, zero_stage: int, packing: bool | str
) -> None:
    lora = {"lora": {"rank": 2, "alpha": 4}, "packing": packing}
    whole = make_job(tiny, tmp_path / "whole", zero_stage=zero_stage, model=lora)
    two(train, whole)
    assert steps(whole.run)[0]["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert set(weights(whole.run)) == set(load_file(tiny / "model" / "model.safetensors"))
    assert unlike(weights(whole.run), load_file(tiny / "model" / "model.safetensors")) > 1e-4
    broken = replace(whole, run=str(tmp_path / "broken"), train=make_job(
        tiny, tmp_path, checkpoints=CheckpointSettings(every_steps=2)
    ).train)  # fmt: skip
    two(train_until, broken, 3)
    two(train, broken)
    assert unlike(weights(broken.run), weights(whole.run)) == 0
    if zero_stage == 2:  # then this file has weights only, and the frozen base is not in there
        assert Path(whole.run, "checkpoints", "step-5", "mp_rank_00_model_states.pt").stat().st_size < 40_000
