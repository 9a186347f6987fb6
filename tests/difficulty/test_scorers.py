"""What workers compute, against one sequence at a time without padding, on models of two layers."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
)

from mixdpo_ray.difficulty.ches import CHES
from mixdpo_ray.difficulty.dcrm import DCRM
from mixdpo_ray.difficulty.embedding_distance import EmbeddingDistance
from mixdpo_ray.difficulty.reward_margin import RewardMargin
from mixdpo_ray.difficulty.reward_model import RewardModel
from mixdpo_ray.errors import ModelError
from mixdpo_ray.pairs.edit_distance import edit_distance
from mixdpo_ray.pairs.pair import Message, Pair
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings
from mixdpo_ray.pairs.tokens import EncodedPair, PairTokenizer
from mixdpo_ray.training.model_loading import Whole
from mixdpo_ray.training.settings import ModelSettings
from tests.pairs.small_tokenizers import CHATML, LLAMA3, small_tokenizer

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
ANSWERS = [("Honey.", "Honey and wax, and wax"), ("Do cars?", "No"), ("Hello! Hi!", "bees bees"), ("a", "b")]
QUESTIONS = ["What do bees make?", "Hi!", "How do you do? Hello.", "What?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy, a reward model with another template, one without a template, and a model without a head."""
    folder = tmp_path_factory.mktemp("scorers")
    torch.manual_seed(0)
    tokenizer, other = small_tokenizer(CHATML), small_tokenizer(LLAMA3)
    plain = small_tokenizer(None)
    plain.pad_token = "<bos>"
    size = {**SMALL, "vocab_size": len(tokenizer)}
    models: dict[str, tuple[Any, Any]] = {
        "policy": (LlamaForCausalLM(LlamaConfig(**size)), tokenizer),
        "reward": (LlamaForSequenceClassification(LlamaConfig(num_labels=1, **size)), other),
        "plain": (BertForSequenceClassification(BertConfig(num_labels=1, **size)), plain),
        "classes": (LlamaForSequenceClassification(LlamaConfig(num_labels=3, **size)), other),
    }
    for name, (model, of_model) in models.items():
        model.save_pretrained(folder / name)
        of_model.save_pretrained(folder / name)
    return folder


def policy(folder: Path) -> ModelSettings:
    return ModelSettings(path=str(folder / "policy"), dtype="float32")


@cache
def rows() -> pa.Table:
    """Rows of a prepared table, of unequal lengths."""
    encoder = PairTokenizer(small_tokenizer(CHATML), DataSettings(source=SourceSettings(path="none")))
    encoded = [
        encoder.encode(Pair((Message(role="user", content=question),), *answers, 1.0, "here"))
        for question, answers in zip(QUESTIONS, ANSWERS, strict=True)
    ]
    pairs = [pair for pair in encoded if isinstance(pair, EncodedPair)]
    assert len(pairs) == len(QUESTIONS)
    tokens = {
        f"{part}_ids": pa.array([getattr(pair, f"{part}_ids") for pair in pairs], pa.list_(pa.int32()))
        for part in ("prompt", "chosen", "rejected")
    }
    return pa.table({"pair_id": list("abcd"), **tokens, "margin": np.ones(4)})


def token_lists(name: str) -> list[list[int]]:
    lists: list[list[int]] = rows()[f"{name}_ids"].to_pylist()
    return lists


def in_llama3(question: str, answer: str) -> str:
    head = "<bos><|header|>user<|/header|>\n\n"
    return f"{head}{question}<|eot|><|header|>assistant<|/header|>\n\n{answer}<|eot|>"


def test_ches_agrees_with_the_states_of_each_answer_alone(folder: Path) -> None:
    """Summed from the prompt's last token to the answer's last but one, the places that predict the answer."""
    found = CHES().scorer(policy(folder), Whole())(rows())
    model = LlamaForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32).eval()
    for row, prompt in enumerate(token_lists("prompt")):
        sums, means = {}, {}
        for side in ("chosen", "rejected"):
            answer = token_lists(side)[row]
            with torch.no_grad():
                states = model(torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states[-1][0]
            of_answer = states[len(prompt) - 1 : len(prompt) + len(answer) - 1]
            assert len(of_answer) == len(answer)
            sums[side], means[side] = of_answer.sum(0), of_answer.mean(0)
        for name, of in (("ches", sums), ("ches_per_token", means)):
            expected = of["chosen"] @ of["rejected"] - of["chosen"] @ of["chosen"]
            assert found[name][row] == pytest.approx(float(expected), rel=1e-4)


def test_rewards_agree_with_each_conversation_alone_in_the_reward_models_own_template(folder: Path) -> None:
    """The text is that of the pair, not of the policy's template."""
    metric = RewardMargin(model=str(folder / "reward"), dtype="float32")
    found = metric.scorer(policy(folder), Whole())(rows())
    model = LlamaForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32).eval()
    tokenizer = small_tokenizer(LLAMA3)
    for row, (question, answers) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        for side, answer in zip(("chosen", "rejected"), answers, strict=True):
            text = (
                f"<bos><|header|>user<|/header|>\n\n{question}<|eot|><|header|>assistant<|/header|>\n\n{answer}<|eot|>"
            )
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                expected = float(model(torch.tensor([ids])).logits[0, 0])
            assert found[f"reward_{side}"][row] == pytest.approx(expected, abs=1e-5)


def test_a_reward_model_without_a_template_reads_question_and_answer_as_two_texts(folder: Path) -> None:
    found = RewardMargin(model=str(folder / "plain"), dtype="float32").scorer(policy(folder), Whole())(rows())
    model = BertForSequenceClassification.from_pretrained(folder / "plain", dtype=torch.float32).eval()
    tokenizer = small_tokenizer(None)
    for row, question in enumerate(QUESTIONS):
        encoded = tokenizer(question, ANSWERS[row][1], return_tensors="pt")
        with torch.no_grad():
            expected = float(model(**encoded).logits[0, 0])
        assert found["reward_rejected"][row] == pytest.approx(expected, abs=1e-5)


def test_of_a_conversation_that_is_too_long_the_end_is_read(folder: Path) -> None:
    metric = RewardMargin(model=str(folder / "reward"), dtype="float32", max_length=8)
    found = metric.scorer(policy(folder), Whole())(rows())
    model = LlamaForSequenceClassification.from_pretrained(folder / "reward", dtype=torch.float32).eval()
    ids = small_tokenizer(LLAMA3)(in_llama3(QUESTIONS[0], "Honey."), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        expected = float(model(torch.tensor([ids[:1] + ids[-7:]])).logits[0, 0])
    assert found["reward_chosen"][0] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("policy", "has no trained weights for score.weight, so its scores would be random"),
        ("classes", "gives 3 numbers for a text and a reward is one"),
        ("absent", "is no folder; correct the path"),
    ],
)
def test_what_is_no_reward_model_is_refused(folder: Path, name: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        RewardMargin(model=str(folder / name), dtype="float32").scorer(policy(folder), Whole())
    assert str(caught.value).startswith("metrics.reward_margin.model '")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("text", ["answer", "prompt_and_answer"])
def test_embedding_distances_agree_with_each_text_alone(folder: Path, pooling: Any, text: Any) -> None:
    metric = EmbeddingDistance(model=str(folder / "plain"), dtype="float32", pooling=pooling, text=text)
    found = metric.scorer(policy(folder), Whole())(rows())["distance"]
    model = AutoModel.from_pretrained(folder / "plain", dtype=torch.float32).eval()
    tokenizer = small_tokenizer(None)
    for row, answers in enumerate(ANSWERS):
        vectors = []
        for answer in answers:
            whole = answer if text == "answer" else f"{QUESTIONS[row]}\n\n{answer}"
            with torch.no_grad():
                states = model(**tokenizer(whole, return_tensors="pt")).last_hidden_state[0]
            vectors.append(states[0] if pooling == "cls" else states.mean(0))
        cosine = float(torch.cosine_similarity(vectors[0], vectors[1], dim=0))
        assert found[row] == pytest.approx(1 - cosine, abs=1e-5)


def test_edits_are_counted_among_the_first_tokens(folder: Path) -> None:
    found = DCRM(max_tokens=2).scorer(policy(folder), Whole())(rows())["edits"]
    pairs = zip(token_lists("chosen"), token_lists("rejected"), strict=True)
    assert found == [edit_distance(one[:2], two[:2]) for one, two in pairs]


CUSTOM = """
from dataclasses import dataclass

import torch
from transformers import LlamaForSequenceClassification


@dataclass
class Rated:
    score: torch.Tensor


class RatingLlama(LlamaForSequenceClassification):
    def forward(self, **inputs):
        return Rated(score=super().forward(**inputs).logits[:, :1] * 2)
"""


def test_a_head_of_its_own_is_read_by_its_score(folder: Path, tmp_path: Path) -> None:
    """Its configuration counts other outputs than the reward."""
    shutil.copytree(folder / "classes", tmp_path / "custom")
    (tmp_path / "custom" / "rating.py").write_text(CUSTOM)
    config = json.loads((tmp_path / "custom" / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "rating.RatingLlama"}
    (tmp_path / "custom" / "config.json").write_text(json.dumps(config))
    settings = ModelSettings(path=str(tmp_path / "custom"), dtype="float32", trust_remote_code=True)
    found = RewardModel(settings, "here", 4096, Whole())([[Message(role="user", content="Hi!")]], ["Hello!"])
    model = LlamaForSequenceClassification.from_pretrained(folder / "classes", dtype=torch.float32).eval()
    ids = small_tokenizer(LLAMA3)(in_llama3("Hi!", "Hello!"), add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        assert found.tolist() == pytest.approx([2 * float(model(torch.tensor([ids])).logits[0, 0])], abs=1e-5)


def test_a_batch_that_memory_has_no_room_for_is_halved(folder: Path) -> None:
    """Rewards are those of the whole batch; of a single answer there is no half."""
    model = RewardModel(ModelSettings(path=str(folder / "reward"), dtype="float32"), "here", 4096, Whole())
    prompts = [[Message(role="user", content=question)] for question in QUESTIONS]
    texts = [chosen for chosen, _ in ANSWERS]
    whole, forward, sizes = model(prompts, texts), model.model.forward, []

    def little_memory(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > most:
            raise torch.cuda.OutOfMemoryError("no room")
        return forward(**inputs)

    model.model.forward = little_memory
    most = 1
    assert model(prompts, texts) == pytest.approx(whole, abs=1e-5)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]
    most = 0
    with pytest.raises(torch.cuda.OutOfMemoryError):
        model(prompts, texts)
