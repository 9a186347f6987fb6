"""The engine vllm, as far as no GPU and no vLLM is needed: what it is given, what is read of it, and refusals."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.playground.base_model import make_tokenizer
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.sample import TAKEN, SampleSettings
from mixdpo_ray.sampling.engine import DRAWN, AskedAnswer
from mixdpo_ray.sampling.prompts import AskedPrompt
from mixdpo_ray.sampling.sample import sample
from mixdpo_ray.sampling.vllm import (
    FAILED,
    STAGE_COLUMNS,
    drawn_table,
    model_ends,
    sorted_out,
    template_ends,
    vllm_config,
    vllm_row,
)
from mixdpo_ray.training.keyed_sampling import key_seed
from mixdpo_ray.training.settings import ModelSettings

HERE = find_spec("vllm") is not None
PROMPT = AskedPrompt((Message(role="user", content="sort b a"),), "prompts.jsonl", 0)


def settings(**decoding: Any) -> SampleSettings:
    return SampleSettings.model_validate({"engine": "vllm", "decoding": decoding, "vllm": {"gpus_each": 2}})


def recipe(folder: Path, *overrides: str) -> Recipe:
    write_tiny_model(folder / "model")
    (folder / "prompts.jsonl").write_text('{"prompt": "sort b a"}\n')
    (folder / "recipe.yaml").write_text(
        f"model: {{path: {folder}/model, dtype: float32}}\ndata: {{source: {{path: {folder}/prompts.jsonl}}}}\n"
        "cluster: {num_workers: 1, use_gpu: false}\n"
        f"answers: {{sample: {{engine: vllm, prompts: {{source: {{path: {folder}/prompts.jsonl}}}}}}}}\n"
    )
    return load_recipe(str(folder / "recipe.yaml"), [f"output.storage_path={folder}/out", *overrides])


def test_n_answers_are_n_rows_with_seeds_of_their_own_and_the_same_tokens() -> None:
    asked = settings(temperature=0.8, top_p=0.95, max_new_tokens=100, stop=["END"], seed=3)
    rows = [vllm_row(AskedAnswer(PROMPT, draw), [5, 6, 7], 40, asked, {2, 9}) for draw in range(5)]
    seeds = [row["sampling_params"].pop("seed") for row in rows]
    assert seeds == [key_seed(PROMPT.prompt_id, draw, 3) % 2**31 for draw in range(5)]
    assert len(set(seeds)) == 5
    assert rows[4] == {
        "prompt_id": PROMPT.prompt_id,
        "draw": 4,
        "most": 40,
        "tokenized_prompt": [5, 6, 7],
        "sampling_params": {
            "temperature": 0.8,
            "top_p": 0.95,
            "max_tokens": 40,
            "min_tokens": 1,
            "stop": ["END"],
            "stop_token_ids": [2, 9],
        },
    }


def test_rows_without_stop_texts_or_a_known_context_hold_no_empty_lists() -> None:
    row = vllm_row(AskedAnswer(PROMPT, 0), [5], None, settings(max_new_tokens=7, min_new_tokens=3), set())
    assert row["most"] == 7
    assert set(row["sampling_params"]) == {"temperature", "top_p", "max_tokens", "min_tokens", "seed"}
    assert pa.Table.from_pylist([row]).schema.field("tokenized_prompt").type == pa.list_(pa.int64())


def test_the_stage_takes_the_configuration_as_the_installed_ray_has_it() -> None:
    asked = settings().model_copy(
        update={"vllm": settings().vllm.model_copy(update={"options": {"max_model_len": 512}})}
    )
    config = vllm_config(ModelSettings(path="some/model", revision="abc"), asked, 3)
    assert config.model_source == "some/model"
    assert config.get_concurrency() == {"min_size": 3, "max_size": 3}
    assert (config.should_continue_on_error, config.task_type) == (True, "generate")
    assert (config.chat_template_stage, config.tokenize_stage, config.detokenize_stage) == (False, False, False)
    assert config.engine_kwargs == {
        "dtype": "bfloat16",
        "trust_remote_code": False,
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.9,
        "enable_prefix_caching": True,
        "revision": "abc",
        "max_model_len": 512,
        "task_type": "generate",
    }


def test_the_columns_that_are_read_are_those_that_the_installed_rays_stage_writes() -> None:
    from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMOutputData

    assert {"generated_text", "generated_tokens"} <= set(vLLMOutputData.model_fields)


def test_an_answer_has_ended_where_its_last_token_or_a_stop_text_says_so_and_is_cut_otherwise(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    tokenizer = make_tokenizer()
    ends = model_ends(ModelSettings(path=str(tmp_path))) | template_ends(tokenizer)
    assert tokenizer.eos_token_id in ends
    a, b = (tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "ab")
    rows = [
        {"prompt_id": "p", "draw": draw, "most": 3, "generated_text": text, "generated_tokens": tokens}
        for draw, (text, tokens) in enumerate(
            [
                ("a b", [a, b, tokenizer.eos_token_id]),
                ("a b a", [a, b, a]),
                ("a", [a, a, b]),
                ("", []),
                ("a", [a]),
            ]
        )
    ]
    table = drawn_table(rows, tokenizer, ends, ["b"] if tokenizer.decode([b]) else [])
    assert table.schema == DRAWN
    assert table["token_ids"].to_pylist() == [[a, b], [a, b, a], [a, a, b], [], [a]]
    assert table["tokens"].to_pylist() == [2, 3, 3, 0, 1]
    assert table["finish"].to_pylist() == ["stop"] * 5
    assert drawn_table(rows, tokenizer, ends, [])["finish"].to_pylist() == ["stop", "length", "length", "stop", "stop"]


def test_a_failed_row_is_counted_and_is_no_answer() -> None:
    columns = dict.fromkeys(STAGE_COLUMNS, "") | {"draw": 1, "most": 3, "generated_tokens": [4]}
    block = pa.Table.from_pylist([columns, {**columns, FAILED: "ValueError: too long"}])
    answered, failed = sorted_out(block)
    assert [row["draw"] for row in answered] == [1]
    assert failed == ["ValueError: too long"]


@pytest.mark.skipif(HERE, reason="vLLM is installed here")
def test_without_vllm_the_engine_is_refused_in_one_line_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError) as error:
        sample(recipe(tmp_path))
    assert str(error.value) == (
        "answers.sample.engine vllm needs vllm: pip install 'mixdpo_ray[vllm]', or set it to hf, or to http for a "
        "server"
    )
    assert "Ray" not in capsys.readouterr().err


@pytest.mark.parametrize("name", TAKEN)
def test_options_that_have_a_setting_of_their_own_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecipeError, match=f"options.{name} is set elsewhere"):
        recipe(tmp_path, f"answers.sample.vllm.options={{{name}: 1}}")
