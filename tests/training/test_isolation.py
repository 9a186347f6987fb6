"""Trainings that follow each other in the same processes: each is, bit for bit, the one in processes of its own."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.training.isolation import isolated
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.logps import Scorer
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import OptimizerSettings
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_every_objective import told
from tests.training.tiny import make_job

# what a search may try one after the other: objective, ZeRO stage, dtype, adapters
KINDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "plain": ("dpo", 0, {}),
    "sharded": ("simpo", 3, {}),
    "half": ("ipo", 2, {"dtype": "bfloat16"}),
    "looks": ("amapo", 1, {}),
    "adapted": ("dpo", 2, {"lora": {"rank": 2}}),
}
ORDER = ["sharded", "half", "broken", "adapted", "looks", "plain", "sharded", "half", "looks", "adapted"]


def make_biased(tiny: Path, world: Path) -> Path:
    """The tiny world with a model whose layers have biases: ZeRO-3's own linear layer rounds them otherwise."""
    shutil.copytree(tiny, world, dirs_exist_ok=True)
    settings = {**json.loads((tiny / "model" / "config.json").read_text()), "attention_bias": True, "mlp_bias": True}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(world / "model")
    return world


@pytest.fixture(scope="module")
def biased(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_biased(tiny, tmp_path_factory.mktemp("biased"))


def job_of(world: Path, run: Path, kind: str) -> TrainingJob:
    """The references are those of another model, which is no concern here."""
    name, zero_stage, model = KINDS.get(kind, KINDS["half"])
    rate = 1e30 if kind == "broken" else 1e-3
    return make_job(
        world, run, objective=OBJECTIVES[name](), zero_stage=zero_stage, model={"reference_tolerance": 1e3, **model},
        optimizer=OptimizerSettings(learning_rate=rate),
    )  # fmt: skip


def train(world: World, job: TrainingJob) -> str:
    with isolated(world):
        try:
            run_training(job, world)
        except NonFiniteError as error:
            return str(error)
    return "ended"


def weights(run: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((run / "model").glob("*.safetensors")))


@pytest.fixture(scope="module")
def used(biased: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Runs of every kind, by two workers that had trained others before."""
    folder, workers = tmp_path_factory.mktemp("used"), Gang(2)
    ends = [workers(train, job_of(biased, folder / f"{n}-{kind}", kind)) for n, kind in enumerate(ORDER)]
    assert [end for end in ends if end != ["ended"] * 2] == [ends[ORDER.index("broken")]]
    assert "is not finite" in ends[ORDER.index("broken")][0]
    yield folder
    workers.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_after_others_is_the_one_alone(kind: str, used: Path, biased: Path, tmp_path: Path) -> None:
    without_export = Gang(2)
    assert without_export(train, job_of(biased, tmp_path, kind)) == ["ended"] * 2
    without_export.close()
    runs = [used / f"{n}-{one}" for n, one in enumerate(ORDER) if one == kind]
    assert runs
    for run in runs:
        assert told(run) == told(tmp_path)
        assert weights(run) == weights(tmp_path)


def disturb(world: World) -> dict[str, bool]:
    """What DeepSpeed, transformers and others change in a process, and what is left of it."""
    linear, threads, before = functional.linear, torch.get_num_threads(), dict(os.environ)
    with isolated(world):
        os.environ["LOCAL_RANK"], os.environ["ADDED"] = "7", "1"
        os.environ.pop("PATH")
        functional.linear = lambda *_: None  # type: ignore[assignment]
        torch.set_default_dtype(torch.bfloat16)
        torch.set_num_threads(threads + 1)
        logging.disable(logging.CRITICAL)
    return {
        "environment": dict(os.environ) == before,
        "linear": functional.linear is linear,
        "dtype": torch.get_default_dtype() == torch.float32,
        "threads": torch.get_num_threads() == threads,
        "logging": logging.root.manager.disable == logging.NOTSET,
    }


def test_what_a_training_changes_in_its_process_is_put_back() -> None:
    assert all(disturb(World()).values())


def held() -> Counter[str]:
    """Models and optimizers in memory, those too that other tests have left."""
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, Scorer | torch.optim.Optimizer))


def leftovers(world: World, job: TrainingJob) -> list[str]:
    before = held()
    train(world, job)
    return list((held() - before).elements())


@pytest.mark.parametrize("kind", ["sharded", "half", "broken", "plain"])
def test_neither_model_nor_optimizer_stays_in_memory(kind: str, tiny: Path, two: Gang, tmp_path: Path) -> None:
    assert two(leftovers, job_of(tiny, tmp_path, kind)) == [[], []]


def peaks(world: World) -> list[float]:
    """In GiB: of a large piece of work, and of a small one after it."""
    found = []
    for numbers in (1 << 25, 1):
        with isolated(world):
            np.ones(numbers)
            found.append(world.peak_memory_gib())
    return found


def test_each_training_tells_its_own_peak_of_memory(two: Gang) -> None:
    (large, small), _ = two(peaks)
    assert large - small > 0.2
