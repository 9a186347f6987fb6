import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from mixdpo_ray.playground.base_model import make_model, make_tokenizer
from mixdpo_ray.training.generation import end_ids, generate, left_padded

PROMPTS = ["sort d a c", "reverse a b c d e f", "double a b c", "swap p o n m", "sort a b c d e f"]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    """Random weights, made larger so that its likeliest tokens are no near ties."""
    model = make_model(make_tokenizer(), seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    return model


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def greedy(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, tokens: int) -> str:
    """One whole forward pass per token, without cache, padding or batch."""
    ids = tokenizer(f"{prompt} =", add_special_tokens=False)["input_ids"]
    answer: list[int] = []
    while len(answer) < tokens and tokenizer.eos_token_id not in answer:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*ids, *answer]])).logits
        answer.append(int(logits[0, -1].argmax()))
    return str(tokenizer.decode(answer, skip_special_tokens=True)).strip()


def test_temperature_zero_takes_the_likeliest_token_each_time(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = [[greedy(model, tokenizer, prompt, 8)] for prompt in PROMPTS]
    assert len({answer for (answer,) in expected}) > 1, "the test would not notice answers in the wrong order"
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=8, temperature=0) == expected


def test_padding_on_the_left_changes_nothing(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    together = generate(model, tokenizer, PROMPTS, max_new_tokens=8, temperature=0, batch_size=len(PROMPTS))
    without_export = generate(model, tokenizer, PROMPTS, max_new_tokens=8, temperature=0, batch_size=1)
    assert together == without_export


def test_prompts_of_unequal_lengths_end_at_the_same_place() -> None:
    ids, mask = left_padded([[5], [6, 7, 8]], padding=0)
    assert ids.tolist() == [[0, 0, 5], [6, 7, 8]]
    assert mask.tolist() == [[0, 0, 1], [1, 1, 1]]


def test_samples_follow_from_the_seed_and_leave_the_callers_generator_alone(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = generate(model, tokenizer, PROMPTS, max_new_tokens=8, answers_each=3, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(answers) for answers in first] == [3] * len(PROMPTS)
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=8, answers_each=3, seed=1) == first
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=8, answers_each=3, seed=2) != first


def test_sampling_draws_from_the_whole_distribution(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Shares of the first token in 4,000 samples against the softmax; four standard deviations at most."""
    ids = tokenizer("sort a b c =", add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        expected = torch.softmax(model(input_ids=ids).logits[0, -1] / 2, -1)
    (said,) = generate(
        model, tokenizer, ["sort a b c"], max_new_tokens=1, temperature=2.0, answers_each=4000, batch_size=4000
    )
    for token, share in enumerate(expected.tolist()):
        if token in tokenizer.all_special_ids:
            continue
        drawn = said.count(tokenizer.convert_ids_to_tokens(token)) / 4000
        assert abs(drawn - share) < 4 * (share * (1 - share) / 4000) ** 0.5 + 1e-3


def test_the_chat_templates_own_end_token_ends_an_answer(model: LlamaForCausalLM) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }} <end>\n{% endfor %}"
    ends = end_ids(model, tokenizer)
    assert set(ends) == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<end>")}
