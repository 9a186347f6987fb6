"""The model of a run's last checkpoint is the one that the run exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.errors import CheckpointError
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.model import sampled_model
from mixdpo_ray.training.checkpoint_export import export_checkpoint
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import make_job


def train(world: World, job: TrainingJob) -> dict[str, Any]:
    return run_training(job, world)


def files(folder: Path) -> set[tuple[str, int]]:
    """Names and permissions of all but the card."""
    return {(file.name, file.stat().st_mode & 0o777) for file in folder.iterdir() if file.name != "README.md"}


@pytest.mark.parametrize(
    ("zero_stage", "lora"),
    [(0, None), (2, None), (3, None), (2, {"rank": 2, "alpha": 4}), (3, {"rank": 2, "alpha": 4})],
)
def test_it_has_the_weights_that_the_run_exported(
    tiny: Path, two: Gang, tmp_path: Path, zero_stage: int, lora: dict[str, int] | None
) -> None:
    job = make_job(tiny, tmp_path / "run", zero_stage=zero_stage, model={"lora": lora})
    two(train, job)
    export_checkpoint(f"{job.run}/checkpoints/step-5", job.model, tmp_path / "model")
    made, expected = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "model", Path(job.run, "model"))
    )
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in expected)
    assert files(tmp_path / "model") == files(Path(job.run, "model"))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.use_cache
    assert len(AutoTokenizer.from_pretrained(tmp_path / "model")) == len(AutoTokenizer.from_pretrained(job.model.path))


def test_a_checkpoint_is_sampled_from_by_its_folder(tiny: Path, two: Gang, tmp_path: Path) -> None:
    """It is put together once."""
    job = make_job(tiny, tmp_path / "run", zero_stage=2)
    two(train, job)
    data = {"source": {"path": "pairs.jsonl"}}
    sample = {"model": f"{job.run}/checkpoints/step-5"}
    recipe = Recipe.model_validate({"model": job.model, "data": data, "answers": {"sample": sample}})
    RunRecord(job.run).write_recipe(recipe, {})
    found = sampled_model(recipe)
    assert found.path == f"{job.run}/exported/step-5"
    written = Path(found.path, "model.safetensors").stat().st_mtime_ns
    assert sampled_model(recipe) == found
    assert Path(found.path, "model.safetensors").stat().st_mtime_ns == written


def test_a_damaged_checkpoint_is_refused(tiny: Path, two: Gang, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path / "run", zero_stage=0)
    two(train, job)
    step = Path(job.run, "checkpoints", "step-5")
    shard = step / "mp_rank_00_model_states.pt"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(
        CheckpointError, match=r"step-5 is damaged \(mp_rank_00_model_states.pt has .* take another one"
    ):
        export_checkpoint(str(step), job.model, tmp_path / "model")
