"""With every pair easy, the losses of 20 steps are TRL's: same model, order, batch and learning rate."""

import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.ipo import IPO
from mixdpo_ray.objectives.simpo import SimPO
from tests.peer.ours import run_ours, write_inputs
from tests.peer.peer import Row, Setup, run_dpo, run_simpo

STEPS, GLOBAL_BATCH, VOCABULARY = 20, 8, 64


def rows(count: int) -> list[Row]:
    draw = random.Random(0)

    def ids(longest: int) -> list[int]:
        return [draw.randrange(3, VOCABULARY) for _ in range(draw.randint(1, longest))]

    return [{"prompt_ids": [1, *ids(9)], "chosen_ids": ids(12), "rejected_ids": ids(12)} for _ in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("peer")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.1, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", bos_token="w1", eos_token="w2")
    tokenizer.save_pretrained(folder / "model")
    write_inputs(folder, folder / "model", rows(STEPS * GLOBAL_BATCH))
    return folder


def setup(folder: Path, beta: float) -> Setup:
    return Setup(folder / "model", rows(STEPS * GLOBAL_BATCH), 1e-3, GLOBAL_BATCH, 4, STEPS, beta)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> dict[str, list[float]]:
    """In a process of its own: accelerate would take up the process group that our engine makes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run_theirs, folder).result()


def _run_theirs(folder: Path) -> dict[str, list[float]]:
    scratch = folder / "trl"
    return {
        "dpo": run_dpo(setup(folder, 0.1), scratch).losses,
        "ipo": run_dpo(setup(folder, 0.5), scratch, "ipo").losses,
        "simpo": run_simpo(setup(folder, 2.0), scratch, gamma_beta_ratio=0.5).losses,
    }


def test_dpo_losses_are_trls(folder: Path, theirs: dict[str, list[float]]) -> None:
    ours = run_ours(setup(folder, 0.1), folder, DPO(beta=0.1)).losses
    assert len(ours) == STEPS
    assert ours == pytest.approx(theirs["dpo"], abs=1e-4)
    assert ours[0] == pytest.approx(0.693147, abs=1e-5)
    assert max(ours) - min(ours) > 0.01  # the weights moved


def test_ipo_losses_are_trls(folder: Path, theirs: dict[str, list[float]]) -> None:
    ours = run_ours(setup(folder, 0.5), folder, IPO(tau=0.5)).losses
    assert ours == pytest.approx(theirs["ipo"], abs=1e-4)


def test_simpo_losses_are_trls(folder: Path, theirs: dict[str, list[float]]) -> None:
    ours = run_ours(setup(folder, 2.0), folder, SimPO(beta=2.0, gamma_beta_ratio=0.5)).losses
    assert ours == pytest.approx(theirs["simpo"], abs=1e-4)
