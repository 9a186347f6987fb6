"""Answers of several turns under the chat templates of well-known models, as TRL ships them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from mixdpo_ray.pairs.checking import check_pair
from mixdpo_ray.pairs.pair import Candidate, Pair
from mixdpo_ray.pairs.tokens import EncodedPair, PairTokenizer
from tests.pairs.samples import BAD, GOOD, conversation, data
from tests.pairs.small_tokenizers import small_tokenizer
from tests.pairs.test_answer_turns import assistants

trl = pytest.importorskip("trl")
TEMPLATES = Path(trl.__file__).parent / "chat_templates"
ENDS = {
    "llama3": "<|eot_id|>",
    "llama3_1": "<|eot_id|>",
    "gemma3": "<end_of_turn>",
    "phi3": "<|end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_instruct_2507": "<|im_end|>",
}
TURNS = conversation("Hello", "Hi!", "Bees?", GOOD, "Cars?", "Noise.")
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm"}}}
CALLED: list[dict[str, Any]] = [
    *conversation("Rain?"),
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "weather", "content": "rain"},
    {"role": "assistant", "content": "Wet."},
]


def said_by_the_assistant(name: str, turns: list[dict[str, Any]], tools: Any = None, **settings: Any) -> list[str]:
    file = TEMPLATES / f"{name}.jinja"
    if not file.exists():
        pytest.skip(f"this TRL has no template {name}")
    rust = small_tokenizer().backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, bos_token="<bos>", eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(ENDS.values()))})
    tokenizer.chat_template = file.read_text()
    other = conversation(turns[0]["content"], BAD)
    pair = check_pair(Candidate(turns, other, "test", margin=1.0, template=(tools, settings)), data())
    assert isinstance(pair, Pair)
    found = PairTokenizer(tokenizer, data(max_prompt_length=2000, max_length=4000)).encode(pair)
    assert isinstance(found, EncodedPair), found
    return assistants(tokenizer, found.chosen_ids, found.chosen_runs)


@pytest.mark.parametrize("name", ENDS)
def test_each_turn_ends_with_the_models_own_token(name: str) -> None:
    end, said = ENDS[name], said_by_the_assistant(name, TURNS)
    last = "<think>\n\n</think>\n\nNoise." if name == "qwen3" else "Noise."
    assert said[:2] == [f"Hi!{end}", f"{GOOD}{end}"]
    assert said[2].startswith(f"{last}{end}")


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3_1"])
def test_a_call_is_learned_and_what_the_tool_says_is_not(name: str) -> None:
    call, answer = said_by_the_assistant(name, CALLED, TOOLS)
    assert '"name": "weather"' in call
    assert "Ulm" in call
    assert answer.endswith(f"Wet.{ENDS[name]}")


def test_an_answer_without_thoughts_stands_behind_the_empty_thought_that_asks_for_none() -> None:
    assert said_by_the_assistant("qwen3", conversation("Hello", "Hi!"), enable_thinking=False) == ["Hi!<|im_end|>"]
