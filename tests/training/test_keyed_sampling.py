"""An answer depends on its key alone, and its tokens have the probabilities that the model gives them."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mixdpo_ray.playground.base_model import make_model, make_tokenizer
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.generation import chat_prompt_ids, end_ids
from mixdpo_ray.training.keyed_sampling import (
    AskedRow,
    DrawnAnswer,
    GumbelNoise,
    drawn_tokens,
    in_nucleus,
    key_seed,
    sample_answers,
    sample_in_batches,
)
from tests.training.families import random_model

PROMPTS = ["sort d a c", "reverse a b c d e f", "double a b c", "swap p o n m", "sort a b c d e f g h"]
TIMES = 20_000


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Random weights, made larger so that some tokens are likelier than others."""
    model = make_model(tokenizer, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
    return model


@pytest.fixture(scope="module")
def asked(tokenizer: PreTrainedTokenizerFast) -> list[AskedRow]:
    """48 of them: some prompts have more draws than others."""
    ids = {prompt: chat_prompt_ids(tokenizer, [{"role": "user", "content": prompt}]) for prompt in PROMPTS}
    return [
        AskedRow(prompt, draw, ids[prompt]) for number, prompt in enumerate(PROMPTS) for draw in range(6 + 2 * number)
    ][:48]


@pytest.mark.parametrize(
    "settings",
    [
        DecodingSettings(max_new_tokens=24),
        DecodingSettings(max_new_tokens=24, temperature=0.7, top_p=0.9, seed=3),
        DecodingSettings(max_new_tokens=24, stop=("a", "c d"), min_new_tokens=0),
        DecodingSettings(max_new_tokens=24, temperature=0),
    ],
    ids=["plain", "nucleus", "stop", "greedy"],
)
def test_a_row_alone_in_a_padded_batch_and_in_another_order_has_the_same_tokens(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[AskedRow], settings: DecodingSettings
) -> None:
    together = sample_answers(model, tokenizer, asked, settings)
    alone = [sample_answers(model, tokenizer, [row], settings)[0] for row in asked]
    order = random.Random(0).sample(range(48), 48)
    shuffled = sample_answers(model, tokenizer, [asked[number] for number in order], settings)
    assert together == alone
    assert together == sample_in_batches(model, tokenizer, asked, settings, 7)
    assert [together[number] for number in order] == shuffled
    assert {answer.finish for answer in together} == {"stop", "length"}


def test_another_draw_prompt_or_seed_has_other_noise() -> None:
    seeds = {key_seed(prompt, draw, seed) for prompt in ("a", "b", "a1") for draw in (0, 1, 11) for seed in (0, 1)}
    assert len(seeds) == 18
    assert all(0 <= seed < 1 << 63 for seed in seeds)


def greedy(model: Any, prompt: list[int], end: int, tokens: int) -> list[int]:
    """One whole forward pass per token, without cache, padding or batch."""
    answer: list[int] = []
    while len(answer) < tokens:
        with torch.no_grad():
            token = int(model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, -1].argmax())
        if token == end and answer:
            return answer
        answer.append(token)
    return answer


def test_temperature_zero_takes_the_likeliest_token_each_time(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[AskedRow]
) -> None:
    rows = asked[::10]
    found = sample_answers(model, tokenizer, rows, DecodingSettings(temperature=0, max_new_tokens=12))
    expected = [greedy(model, list(row.prompt_ids), int(tokenizer.eos_token_id), 12) for row in rows]
    assert [answer.token_ids for answer in found] == expected


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("gemma2", {"head_dim": 8, "sliding_window": 6}),
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
        ("opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
        ("lfm2", {}),
    ],
    ids=["sliding windows", "learnt positions", "positions by the mask", "layers without attention"],
)
def test_families_of_models_answer_alike_alone_and_beside_longer_prompts(
    tokenizer: PreTrainedTokenizerFast, family: str, settings: dict[str, Any]
) -> None:
    model = random_model(family, **settings)
    draw = random.Random(0)
    prompts = [[draw.randrange(3, 20) for _ in range(length)] for length in (3, 20, 9)]
    rows = [AskedRow(f"{number}", n, prompt) for number, prompt in enumerate(prompts) for n in range(3)]
    together = sample_answers(model, tokenizer, rows, DecodingSettings(max_new_tokens=8))
    assert together == [one(model, tokenizer, row, max_new_tokens=8) for row in rows]
    likeliest = sample_answers(model, tokenizer, rows[::3], DecodingSettings(temperature=0, max_new_tokens=8))
    ends = end_ids(model, tokenizer)
    for row, answer in zip(rows[::3], likeliest, strict=True):
        expected = greedy(model, list(row.prompt_ids), -1, 8)
        ended = next((number for number, token in enumerate(expected) if number and token in ends), 8)
        assert expected[0] in ends or answer.token_ids == expected[:ended]


LOGITS = torch.tensor([2.0, 0.0, -1.0, 1.5, -4.0, 0.5, 1.0])


def shares(temperature: float, top_p: float) -> torch.Tensor:
    """How often each word is drawn by so many keys."""
    noise = GumbelNoise([key_seed("prompt", draw, 0) for draw in range(TIMES)], torch.device("cpu"))
    drawn = drawn_tokens(LOGITS.expand(TIMES, -1), noise, temperature, top_p)
    return torch.bincount(drawn, minlength=len(LOGITS)) / TIMES


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_tokens_have_the_probabilities_of_the_softmax(temperature: float) -> None:
    """Chi-square with 6 degrees of freedom: above 22.46 in one of a thousand draws; and the total variation."""
    expected = torch.softmax(LOGITS.double() / temperature, -1)
    found = shares(temperature, 1.0)
    assert float((TIMES * (found - expected) ** 2 / expected).sum()) < 22.46
    assert float((found - expected).abs().sum() / 2) < 0.01


def test_the_nucleus_has_the_fewest_words_that_reach_its_probability_and_keeps_their_proportions() -> None:
    """0.419, 0.254, 0.154, 0.094, ...: two words come to 0.674, three to 0.828."""
    expected = torch.softmax(LOGITS.double(), -1)
    for top_p, words in ((0.41, 1), (0.43, 2), (0.67, 2), (0.68, 3), (0.8, 3), (1e-9, 1)):
        inside = in_nucleus(torch.log(expected)[None], top_p)[0]
        assert int(inside.sum()) == words
    kept = torch.where(in_nucleus(torch.log(expected)[None], 0.8)[0], expected, 0.0)
    assert float((shares(1.0, 0.8) - kept / kept.sum()).abs().sum() / 2) < 0.01


def test_two_steps_of_a_generator_are_independent() -> None:
    noise = GumbelNoise([key_seed("prompt", draw, 0) for draw in range(4000)], torch.device("cpu"))
    first, second = noise.next(1)[:, 0], noise.next(1)[:, 0]
    assert abs(float(torch.corrcoef(torch.stack([first, second]))[0, 1])) < 0.05
    assert float(first.mean()) == pytest.approx(0.5772, abs=0.06)  # of Gumbel's distribution
    assert float(first.std()) == pytest.approx(math.pi / math.sqrt(6), abs=0.06)


def one(model: Any, tokenizer: PreTrainedTokenizerFast, row: AskedRow, **settings: object) -> DrawnAnswer:
    (answer,) = sample_answers(model, tokenizer, [row], DecodingSettings.model_validate(settings))
    return answer


def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[AskedRow]
) -> None:
    row = next(row for row in asked if len(one(model, tokenizer, row, max_new_tokens=9).token_ids) == 9)
    whole = one(model, tokenizer, row, max_new_tokens=9)
    words = whole.text.split(" ")
    stopped = one(model, tokenizer, row, max_new_tokens=9, stop=["not there", f"{words[3]} {words[4]}"])
    assert whole.text.startswith(stopped.text)
    assert stopped.finish == "stop"
    assert f"{words[3]} {words[4]}" not in stopped.text
    assert stopped.token_ids == whole.token_ids[: len(stopped.token_ids)]


def test_no_answer_is_shorter_or_longer_than_asked_for_or_than_the_model_can_read(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, asked: list[AskedRow]
) -> None:
    settings = DecodingSettings(min_new_tokens=5, max_new_tokens=7)
    lengths = {len(answer.token_ids) for answer in sample_answers(model, tokenizer, asked, settings)}
    assert lengths <= {5, 6, 7}
    assert len(lengths) > 1
    little = AskedRow(asked[0].prompt_id, 0, asked[0].prompt_ids, room=2)
    short = one(model, tokenizer, little, min_new_tokens=2)
    assert (len(short.token_ids), short.finish) == (2, "length")
