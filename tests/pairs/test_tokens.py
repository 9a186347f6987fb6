from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import ModelError
from mixdpo_ray.pairs.pair import Message, Pair
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.pairs.tokens import EncodedPair, PairTokenizer, Rendered
from tests.pairs.samples import BAD, GOOD, QUESTION, data
from tests.pairs.small_tokenizers import (
    BARE,
    CHATML,
    LLAMA2,
    LLAMA3,
    NO_SYSTEM,
    QWEN3,
    TEMPLATES,
    THINKING,
    small_tokenizer,
)

ROOT = Path(__file__).parents[2]


def pair(chosen: str = GOOD, rejected: str = BAD, prompt: str = QUESTION, system: str | None = None) -> Pair:
    turns = [Message(role="system", content=system)] if system else []
    return Pair((*turns, Message(role="user", content=prompt)), chosen, rejected, 1.0, "test")


def encode(tokenizer: Any, one: Pair, settings: DataSettings | None = None) -> EncodedPair:
    encoded = PairTokenizer(tokenizer, settings or data()).encode(one)
    assert isinstance(encoded, EncodedPair), encoded
    return encoded


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_is_what_generation_starts_from_and_the_answers_follow_it(name: str) -> None:
    tokenizer = small_tokenizer(TEMPLATES[name])
    encoded = encode(tokenizer, pair())
    prompt = [{"role": "user", "content": QUESTION}]
    generation = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)
    assert encoded.prompt_ids == generation["input_ids"]
    for ids, answer in ((encoded.chosen_ids, GOOD), (encoded.rejected_ids, BAD)):
        whole = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": answer}], tokenize=False)
        trained = tokenizer.decode(encoded.prompt_ids + ids)
        assert trained.startswith(whole.rstrip("\n"))
        assert trained.removeprefix(whole.rstrip("\n")) in ("", "<eos>")


@pytest.mark.parametrize(
    ("template", "eos", "end"),
    [
        (CHATML, "<|im_end|>", "<|im_end|>"),
        (CHATML, "<eos>", "<|im_end|>"),  # the turn's end token, although the tokenizer's eos is another one
        (LLAMA3, "<eos>", "<|eot|>"),
        (QWEN3, "<|im_end|>", "<|im_end|>"),
        (LLAMA2, "<eos>", "<eos>"),
        (BARE, "<eos>", "<eos>"),
    ],
)
def test_the_end_token_is_trained_on_exactly_once_and_nothing_behind_it(template: str, eos: str, end: str) -> None:
    tokenizer = small_tokenizer(template, eos)
    end_id = tokenizer.convert_tokens_to_ids(end)
    encoded = encode(tokenizer, pair())
    for ids in (encoded.chosen_ids, encoded.rejected_ids):
        assert ids[-1] == end_id
        assert ids.count(end_id) == 1


def test_the_bos_token_is_never_doubled() -> None:
    tokenizer = small_tokenizer(LLAMA3)
    encoded = encode(tokenizer, pair())
    assert encoded.prompt_ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.bos_token_id not in encoded.chosen_ids + encoded.rejected_ids


def test_a_template_that_trims_answers_trims_what_is_trained_on() -> None:
    tokenizer = small_tokenizer(LLAMA3)
    assert tokenizer.decode(encode(tokenizer, pair(f"\n {GOOD} \n")).chosen_ids) == f"{GOOD}<|eot|>"


def test_a_template_that_puts_a_think_block_before_the_answer_has_it_trained_on_in_both_answers() -> None:
    tokenizer = small_tokenizer(QWEN3)
    encoded = encode(tokenizer, pair())
    assert tokenizer.decode(encoded.prompt_ids).endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(encoded.chosen_ids) == f"<think>\n\n</think>\n\n{GOOD}<|im_end|>"
    assert tokenizer.decode(encoded.rejected_ids) == f"<think>\n\n</think>\n\n{BAD}<|im_end|>"


def test_a_template_that_renders_the_prompt_differently_once_an_answer_follows_is_refused() -> None:
    assert PairTokenizer(small_tokenizer(THINKING), data()).encode(pair()) == "template_changes_prompt"


def test_a_template_that_does_not_take_these_turns_is_refused() -> None:
    tokens = PairTokenizer(small_tokenizer(NO_SYSTEM), data())
    assert tokens.encode(pair(system="Be brief.")) == "template_refuses_turns"
    assert isinstance(tokens.encode(pair()), EncodedPair)


def test_a_space_before_the_answer_is_tokenised_as_it_is_inside_the_text() -> None:
    """SentencePiece's kind puts a space before every text: apart, ' Honey' would begin with two."""
    tokenizer = small_tokenizer(LLAMA2, sentencepiece=True)
    encoded = encode(tokenizer, pair())
    whole = f"<bos>[INST] {QUESTION} [/INST] {GOOD} <eos>"
    together = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert encoded.prompt_ids + encoded.chosen_ids == together


def test_an_answer_that_follows_without_a_space_gets_none() -> None:
    tokenizer = small_tokenizer(CHATML, sentencepiece=True)
    tokens = tokenizer.convert_ids_to_tokens(encode(tokenizer, pair()).chosen_ids)
    assert tokens[0].startswith("H")


@pytest.mark.parametrize("text", ["<|im_end|>", "a <eos> b", "<bos>", "x<|im_start|>system"])
def test_a_text_that_contains_a_control_token_is_refused(text: str) -> None:
    tokens = PairTokenizer(small_tokenizer(), data())
    assert tokens.encode(pair(chosen=text)) == "control_token"
    assert tokens.encode(pair(rejected=text)) == "control_token"
    assert tokens.encode(pair(prompt=text)) == "control_token"
    assert tokens.encode(pair(system=text)) == "control_token"


def test_the_template_that_is_offered_for_base_models_fits_them() -> None:
    tokenizer = small_tokenizer((ROOT / "jobs" / "recipes" / "plain-chat.jinja").read_text())
    tokens = PairTokenizer(tokenizer, data())
    rendered = tokens._render(pair(system="Be kind."))
    assert isinstance(rendered, Rendered)
    assert rendered.prompt == f"<|system|>\nBe kind.\n<|user|>\n{QUESTION}\n<|assistant|>\n"
    assert (rendered.chosen, rendered.rejected) == (f"{GOOD}<eos>", f"{BAD}<eos>")


def test_a_tokenizer_without_a_template_or_without_an_end_token_is_refused() -> None:
    with pytest.raises(ModelError, match="no chat template"):
        PairTokenizer(small_tokenizer(None), data())
    with pytest.raises(ModelError, match="has an end token"):
        PairTokenizer(small_tokenizer(BARE, eos=None), data())
    with pytest.raises(ModelError, match="does not render the assistant's answer"):
        PairTokenizer(small_tokenizer("{{ messages[0].content }}"), data())


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('ask me nothing') }}", "ask me nothing"),
        ("{% for m in messages %}\n{{ m.role }", "line 2: "),
        ("{{ messages[7].content }}", "list object has no element 7"),
        ("{{ 1 + messages[0].content }}", "unsupported operand type"),
    ],
)
def test_a_template_that_fails_on_every_question_is_refused_in_one_line(template: str, said: str) -> None:
    with pytest.raises(ModelError, match="fails on a question and its answer: ") as caught:
        PairTokenizer(small_tokenizer(template), data())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; correct it, or set model.chat_template")


def test_the_largest_token_id_is_that_of_what_pairs_can_hold() -> None:
    tokenizer = small_tokenizer()
    plain = len(tokenizer) - 1
    assert PairTokenizer(tokenizer, data()).largest_id == plain
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert PairTokenizer(tokenizer, data()).largest_id == plain  # no text may hold it, and no template writes it
    tokenizer.pad_token = "<image>"
    assert PairTokenizer(tokenizer, data()).largest_id == plain + 1


def test_too_long_is_refused_by_default() -> None:
    whole = encode(small_tokenizer(), pair())
    prompt, answer = len(whole.prompt_ids), len(whole.chosen_ids)
    assert len(whole.rejected_ids) < answer

    def outcome(**settings: int) -> EncodedPair | str:
        return PairTokenizer(small_tokenizer(), data(**settings)).encode(pair())

    assert isinstance(outcome(max_prompt_length=prompt, max_length=prompt + answer), EncodedPair)
    assert outcome(max_prompt_length=prompt - 1, max_length=prompt + answer) == "prompt_too_long"
    assert outcome(max_prompt_length=prompt, max_length=prompt + answer - 1) == "answer_too_long"
    assert outcome(max_prompt_length=prompt, max_length=prompt) == "answer_truncated_to_nothing"


def test_truncation_cuts_prompts_on_the_left_behind_their_bos_and_answers_on_the_right() -> None:
    tokenizer = small_tokenizer(LLAMA3)
    whole = encode(tokenizer, pair())
    cut = encode(tokenizer, pair(), data(truncation="truncate", max_prompt_length=8, max_length=10))
    assert cut.prompt_ids == [tokenizer.bos_token_id, *whole.prompt_ids[-7:]]
    assert cut.chosen_ids == whole.chosen_ids[:2]
    assert cut.rejected_ids == whole.rejected_ids[:2]
    assert cut.notes == ("truncated_prompt", "truncated_chosen", "truncated_rejected")


def test_truncation_without_a_bos_keeps_only_the_end_of_the_prompt() -> None:
    tokenizer = small_tokenizer(CHATML)
    whole = encode(tokenizer, pair())
    cut = encode(tokenizer, pair(), data(truncation="truncate", max_prompt_length=8))
    assert cut.prompt_ids == whole.prompt_ids[-8:]
    assert cut.notes == ("truncated_prompt",)


def test_truncation_that_leaves_nothing_or_nothing_different_is_refused() -> None:
    def outcome(one: Pair, max_length: int) -> EncodedPair | str:
        settings = data(truncation="truncate", max_prompt_length=5, max_length=max_length)
        return PairTokenizer(small_tokenizer(), settings).encode(one)

    assert outcome(pair(), 5) == "answer_truncated_to_nothing"
    assert outcome(pair("same start, then this", "same start, then that"), 8) == "answers_equal_after_truncation"
    assert isinstance(outcome(pair("this", "that"), 12), EncodedPair)


def test_answers_that_become_the_same_tokens_are_identical() -> None:
    template = CHATML.replace("{{ m.content }}", "{{ m.content | lower }}")
    assert PairTokenizer(small_tokenizer(template), data()).encode(pair("YES", "yes")) == "identical_answers"


def test_many_pairs_at_once_give_what_each_gives_alone_in_order() -> None:
    tokens = PairTokenizer(small_tokenizer(), data())
    pairs = [pair(), pair("a <eos>"), pair(f"{GOOD} {GOOD}"), pair(prompt="<bos>"), pair("Wax.", "Noise.")]
    assert tokens.encode_many(pairs) == [tokens.encode(one) for one in pairs]
    assert tokens.encode_many([]) == []
