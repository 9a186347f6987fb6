"""Rows that ranks run together, a slice each: what one rank alone computes, from less memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from mixdpo_ray.errors import ModelError, ResourceError
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.logps import Scorer
from mixdpo_ray.training.memory_estimate import CPU_RUNTIME, pass_tokens, worker_memory
from mixdpo_ray.training.sequence_ranks import SequenceRanks, why_not_exchanged
from mixdpo_ray.training.settings import CheckpointSettings, DeepSpeedSettings, TrainSettings
from mixdpo_ray.training.world import World
from tests.training.families import random_model
from tests.training.gang import Gang
from tests.training.memory_peaks import peak_bytes
from tests.training.test_attention import FAMILIES, PAIRS, batch_of, gradients, truth_of
from tests.training.test_attention import difference as relative
from tests.training.test_every_objective import job_of, objective_of, told, train
from tests.training.test_gradients import MIXED, difference, gradient, naive_gradient, plain_job
from tests.training.test_loop import train_until, unlike, weights
from tests.training.test_memory_estimate import SMALL, small_shape

PACKED: dict[str, Any] = {"curriculum": {"mode": "router", "sft_weight": 0.7}, "model": {"packing": True}}


@pytest.mark.parametrize("zero_stage", [2, 3])
@pytest.mark.parametrize("step", [MIXED, 3, 0], ids=["mixed", "hard", "easy"])
def test_ranks_that_share_rows_give_the_gradient_of_the_naive_sum(
    tiny: Path, two: Gang, four: Gang, step: int, zero_stage: int
) -> None:
    """Rows of odd numbers of tokens; all ranks share every row, or two by two; of four, two have the same key."""
    loss, truth = naive_gradient(plain_job(tiny, 1, **PACKED), step)
    for gang, ranks in ((two, 2), (four, 2), (four, 4)):
        job = plain_job(tiny, 3, zero_stage=zero_stage, sequence_parallel=ranks, **PACKED)
        found = gang(gradient, job, step)
        assert all(sums["loss"] == pytest.approx(loss, rel=1e-5) for sums, _, _ in found)
        assert difference(found[0][2], truth) < 1e-5


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
def test_fillers_chunks_and_recomputed_layers_change_nothing(tiny: Path, four: Gang, zero_stage: int) -> None:
    """In rows of one pair a rank may predict nothing, and runs its chunks of the vocabulary all the same."""
    changes = PACKED | {"global_batch_size": 7, "logp_chunk_tokens": 5, "gradient_checkpointing": True}
    _, truth = naive_gradient(plain_job(tiny, 1, **changes), 3)
    job = plain_job(tiny, 1, zero_stage=zero_stage, sequence_parallel=2, **changes)
    assert difference(four(gradient, job, 3)[0][2], truth) < 1e-5


Trained = Callable[[str], Path]


@pytest.fixture(scope="module")
def alone(tiny: Path, one: Gang, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Undisturbed runs of one rank, each made once."""
    root = tmp_path_factory.mktemp("alone")

    @cache
    def run(name: str) -> Path:
        one(train, shared_job(tiny, root / name, name, 1, per_device_train_batch_size=4))
        return root / name

    return run


def shared_job(tiny: Path, run: Path, name: str, ranks: int, zero_stage: int = 2, **settings: Any) -> TrainingJob:
    job = job_of(tiny, run, objective_of(name), "router", zero_stage, **settings)
    deepspeed = job.deepspeed.model_copy(update={"sequence_parallel": ranks})
    return replace(job, deepspeed=deepspeed, model=job.model.model_copy(update={"packing": True}))


@pytest.mark.parametrize("name", ["dpo", "kto", "amapo", "selective_tokens", "wpo"])
def test_a_run_and_all_that_it_measures_are_those_of_one_rank(
    name: str, tiny: Path, alone: Trained, two: Gang, four: Gang, tmp_path: Path
) -> None:
    """An objective of sums, two that read something off the whole step first, one of single tokens, one of draws."""
    for gang, zero_stage in ((two, 2), (four, 3)):
        folder = tmp_path / str(gang.size)
        gang(train, shared_job(tiny, folder, name, 2, zero_stage))
        for expected, found in zip(told(alone(name)), told(folder), strict=True):
            numbers = {name: value for name, value in expected.items() if isinstance(value, float)}
            assert found == expected | {
                name: pytest.approx(value, rel=2e-5, abs=2e-5) for name, value in numbers.items()
            }
        assert unlike(weights(folder), weights(alone(name))) < 2e-5


def test_a_run_goes_on_to_the_same_bits_and_with_other_ranks_to_the_last_but_few(
    tiny: Path, one: Gang, two: Gang, four: Gang, alone: Trained, tmp_path: Path
) -> None:
    every_two: dict[str, Any] = {"checkpoints": CheckpointSettings(every_steps=2)}
    undisturbed = shared_job(tiny, tmp_path / "undisturbed", "dpo", 2, **every_two)
    killed = replace(undisturbed, run=str(tmp_path / "killed"))
    two(train, undisturbed)
    two(train_until, killed, 3)
    two(train, killed)
    assert told(tmp_path / "killed") == told(tmp_path / "undisturbed")
    assert unlike(weights(tmp_path / "killed"), weights(tmp_path / "undisturbed")) == 0
    for gang, ranks in ((four, 4), (two, 1), (one, 1)):
        folder = tmp_path / f"on-{gang.size}"
        two(train_until, shared_job(tiny, folder, "dpo", 2, **every_two), 3)
        gang(train, shared_job(tiny, folder, "dpo", ranks, **every_two))
        assert unlike(weights(folder), weights(alone("dpo"))) < 2e-5


def family_of_slices(world: World, job: TrainingJob, family: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Sums and their gradient, of which every rank has a part."""
    make_policy(job.model, job.train, job.deepspeed, world, padding=0).close()  # gets the exchange ready
    world = replace(world, sequence_parallel=world.size)
    model = random_model(family, **FAMILIES[family])
    sums = Scorer(model, packing=True, ranks=SequenceRanks(world))(batch_of(PAIRS, row_slice=world.row_slice)).sum(1)
    parts = gradients(model, sums)
    for part in parts.values():
        dist.all_reduce(part)
    return sums.detach(), parts


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gemma2", "gemma3_text", "phi3", "cohere2", "granite", "gpt2"])
def test_families_with_windows_caps_and_positions_of_their_own_share_rows(tiny: Path, two: Gang, family: str) -> None:
    model = random_model(family, **FAMILIES[family])
    truth = truth_of(model, PAIRS)
    expected = gradients(model, truth)
    for sums, parts in two(family_of_slices, plain_job(tiny, 1), family):
        assert torch.allclose(sums, truth, rtol=1e-5, atol=1e-5)
        assert relative(parts, expected) < 1e-5


def test_two_that_share_rows_need_less_memory_and_as_much_as_is_foreseen(two: Gang, tmp_path: Path) -> None:
    """Eight pairs of 192 tokens in a row. The less of two where one is too much: see test_memory_estimate.py."""
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(tmp_path)

    def peak(ranks: int) -> int:
        peaks: list[int] = two(peak_bytes, str(tmp_path), "float32", 3, 8, 128, True, None, None, ranks)
        return max(peaks)

    settings = DeepSpeedSettings(zero_stage=3, sequence_parallel=2)
    tokens = pass_tokens(TrainSettings(per_device_train_batch_size=8), 128, 192)
    memory = worker_memory(small_shape("float32"), TrainSettings(), settings, tokens, 2, gpu=False)
    estimate = memory.device_bytes - CPU_RUNTIME
    alone, shared = (peak(ranks) for ranks in (1, 2))
    if shared > 1.15 * estimate:
        shared = min(shared, peak(2))
    assert estimate == pytest.approx(shared, rel=0.15)
    assert shared < alone - memory.device["activations"] / 2


def test_what_cannot_be_shared_is_refused_with_its_numbers(tiny: Path, four: Gang, tmp_path: Path) -> None:
    four_heads = plain_job(tiny, 2, sequence_parallel=4, model={"packing": "auto", "attn_implementation": "eager"})
    with pytest.raises(ModelError, match="sequence_parallel 4: its attention is eager and not sdpa"):
        four(gradient, four_heads, 0)
    with pytest.raises(ResourceError, match="sequence_parallel 3 does not divide 4 workers"):
        four(train, shared_job(tiny, tmp_path, "dpo", 3))
    assert why_not_exchanged(14, 2, 2) is None
    assert why_not_exchanged(32, 8, 16) is None
    assert (
        why_not_exchanged(14, 2, 4)
        == "it has 14 attention heads and 2 of keys, which 4 ranks cannot share alike; 2 can"
    )
    assert why_not_exchanged(9, 3, 2) == "it has 9 attention heads and 3 of keys, which 2 ranks cannot share alike"
