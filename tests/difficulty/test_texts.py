"""Texts come back from tokens as they went in, turn by turn, whatever the policy's template."""

from typing import Any

import pytest

from mixdpo_ray.difficulty.texts import Texts
from mixdpo_ray.pairs.pair import Message, Pair
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings
from mixdpo_ray.pairs.tokens import EncodedPair, PairTokenizer
from tests.pairs.small_tokenizers import NO_SYSTEM, TEMPLATES, small_tokenizer

CONVERSATIONS = {
    "one turn": [("user", "What do bees make?")],
    "three turns": [("user", "Hi!"), ("assistant", "Hello!\n\nHow do you do?"), ("user", "What do bees make?")],
    "system": [("system", "bees make honey"), ("user", "What?")],
}


def encoded(template: str, turns: list[tuple[str, str]], **data: Any) -> EncodedPair:
    settings = DataSettings(source=SourceSettings(path="none"), **data)
    messages = tuple(Message(role=role, content=text) for role, text in turns)
    pair = PairTokenizer(small_tokenizer(template), settings).encode(Pair(messages, "Honey.", "Wax", 1.0, "here"))
    assert isinstance(pair, EncodedPair), pair
    return pair


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_turns_and_answers_are_those_of_the_pair(template: str, name: str) -> None:
    turns = CONVERSATIONS[name]
    if template == "llama2" and name == "system":
        pytest.skip("that template has no system turns")
    pair, texts = encoded(TEMPLATES[template], turns), Texts(small_tokenizer(TEMPLATES[template]))
    assert texts.understood(pair.prompt_ids)
    assert [(turn["role"], turn["content"]) for turn in texts.prompt(pair.prompt_ids)] == turns
    assert (texts.answer(pair.chosen_ids), texts.answer(pair.rejected_ids)) == ("Honey.", "Wax")


def test_a_template_that_refuses_system_turns_is_understood_without_them() -> None:
    pair, texts = encoded(NO_SYSTEM, CONVERSATIONS["three turns"]), Texts(small_tokenizer(NO_SYSTEM))
    assert len(texts.prompt(pair.prompt_ids)) == 3


def test_a_prompt_that_was_cut_becomes_one_turn_with_all_that_is_left() -> None:
    pair = encoded(TEMPLATES["chatml"], CONVERSATIONS["three turns"], max_prompt_length=20, truncation="truncate")
    texts = Texts(small_tokenizer(TEMPLATES["chatml"]))
    assert not texts.understood(pair.prompt_ids)
    (turn,) = texts.prompt(pair.prompt_ids)
    assert turn["role"] == "user"
    assert "What do bees make?" in turn["content"]
    assert "<|im_end|>" not in turn["content"]
