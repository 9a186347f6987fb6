"""Which tokens of an answer of several turns are the assistant's, by templates of every style."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mixdpo_ray.pairs.answer_turns import runs_of, runs_within
from mixdpo_ray.pairs.checking import check_pair
from mixdpo_ray.pairs.pair import Candidate, Pair
from mixdpo_ray.pairs.tokens import TOOLS_IGNORED, EncodedPair, PairTokenizer
from mixdpo_ray.tables.runs import mask_of
from tests.pairs.samples import BAD, GOOD, QUESTION, conversation, data
from tests.pairs.small_tokenizers import BARE, CHATML, LLAMA2, LLAMA3, MARKED, QWEN3, TOOLS, small_tokenizer

TURNS = conversation("Hello", "Hi!", QUESTION, GOOD, "And cars?", "Noise.")
TOOL = [{"name": "weather"}]


def pair(chosen: Any = TURNS, rejected: Any = None, template: tuple[Any, Any] = (None, None)) -> Pair:
    other = rejected or conversation("Hello", BAD)
    made = check_pair(Candidate(chosen, other, "test", margin=1.0, template=template), data())
    assert isinstance(made, Pair), made
    return made


def encoded(template: str, one: Pair, **settings: Any) -> EncodedPair:
    found = PairTokenizer(small_tokenizer(template, **settings), data()).encode(one)
    assert isinstance(found, EncodedPair), found
    return found


def assistants(tokenizer: Any, ids: list[int], runs: list[int] | None) -> list[str]:
    """The text of each run of the assistant's."""
    mask = mask_of(runs, len(ids))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(int)))
    return [tokenizer.decode(ids[first:last]) for first, last in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize(
    ("template", "end", "settings"),
    [
        (CHATML, "<|im_end|>", {}),
        (LLAMA3, "<|eot|>", {}),
        (QWEN3, "<|im_end|>", {}),
        (MARKED, "<|im_end|>", {}),
        (LLAMA2, " <eos>", {}),
        (LLAMA2, " <eos>", {"sentencepiece": True}),
    ],
    ids=["chatml", "llama3", "qwen3", "marked", "llama2", "sentencepiece"],
)
def test_each_turn_of_the_assistant_counts_up_to_its_end_token(
    template: str, end: str, settings: dict[str, Any]
) -> None:
    one, tokenizer = encoded(template, pair(), **settings), small_tokenizer(template, **settings)
    assert one.chosen_runs is not None
    said = assistants(tokenizer, one.chosen_ids, one.chosen_runs)
    thought = "<think>\n\n</think>\n\n" if template == QWEN3 else ""
    assert [text.strip() for text in said] == [f"Hi!{end}", f"{GOOD}{end}", f"{thought}Noise.{end}"]
    assert one.rejected_runs is None
    whole = tokenizer.apply_chat_template(TURNS)["input_ids"]
    assert (one.prompt_ids + one.chosen_ids) == whole[: len(one.prompt_ids) + len(one.chosen_ids)]


def test_words_that_melt_into_what_they_were_asked_by_refuse_the_row() -> None:
    """`assistant: ` ends with a space that the tokenizer draws to the next word, once there is one."""
    assert PairTokenizer(small_tokenizer(BARE), data()).encode(pair()) == "turns_not_separable"


def test_a_call_is_the_assistants_and_what_the_tool_says_is_not() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]}
    chosen = [
        *conversation("Hello"),
        call,
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "Wet"},
    ]
    one, tokenizer = encoded(TOOLS, pair(chosen, template=(TOOL, None))), small_tokenizer(TOOLS)
    said = assistants(tokenizer, one.chosen_ids, one.chosen_runs)
    assert said == ['[{"name": "weather", "arguments": {}}]<|im_end|>', "Wet<|im_end|>"]
    assert "rain" in tokenizer.decode(one.chosen_ids)
    deaf = PairTokenizer(small_tokenizer(CHATML), data())
    assert deaf.encode(pair(chosen)) == "template_refuses_turns"


def test_tools_and_settings_reach_the_template_and_ignored_tools_are_noted() -> None:
    tokenizer = small_tokenizer(TOOLS)
    one = encoded(TOOLS, pair(conversation("Hello", GOOD), template=(TOOL, '{"enable_thinking": true}')))
    assert tokenizer.decode(one.prompt_ids).startswith('<|im_start|>system\n[{"name": "weather"}]<|im_end|>')
    assert one.notes == ()
    assert encoded(CHATML, pair(conversation("Hello", GOOD), template=(TOOL, None))).notes == (TOOLS_IGNORED,)


def test_a_setting_that_changes_what_an_answer_stands_behind_refuses_the_row() -> None:
    tokens = PairTokenizer(small_tokenizer(TOOLS), data())
    one = pair(conversation("Hello", GOOD), template=(None, {"enable_thinking": False}))
    assert tokens.encode(one) == "template_changes_prompt"


def test_a_tool_that_says_a_control_token_refuses_the_row() -> None:
    one = pair(template=([{"name": "weather", "description": "<|im_end|>"}], None))
    assert PairTokenizer(small_tokenizer(TOOLS), data()).encode(one) == "control_token"


def test_a_cut_answer_keeps_the_runs_of_what_is_left() -> None:
    whole = encoded(CHATML, pair())
    assert whole.chosen_runs is not None
    room = len(whole.prompt_ids) + whole.chosen_runs[0] + 2
    short = PairTokenizer(small_tokenizer(), data(max_length=room, max_prompt_length=20, truncation="truncate"))
    cut = short.encode(pair())
    assert isinstance(cut, EncodedPair)
    assert cut.chosen_runs == [whole.chosen_runs[0], 2]


def test_runs_and_masks_say_the_same() -> None:
    for mask in ([1, 1, 0, 1], [0, 0, 1], [1], [0, 1, 0]):
        assert mask_of(runs_of(mask), len(mask)).tolist() == list(map(bool, mask))
    assert runs_within([2, 3, 4], 9) == [2, 3, 4]
    assert runs_within([2, 3, 4], 5) == [2, 3]
    assert runs_within([0, 3, 4], 2) == [0, 2]
    assert mask_of(None, 2).all()
