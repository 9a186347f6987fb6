"""A second turn is asked behind the first answer, each category at its own temperature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mixdpo_ray.evaluation.answers import AnswerRow, ArmSampler
from mixdpo_ray.evaluation.arms import EvaluationArm
from mixdpo_ray.evaluation.prompts import read_benchmark
from mixdpo_ray.evaluation.scored import ArmAnswers
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.engine import Engine
from mixdpo_ray.sampling.prompts import AskedPrompt
from tests.benchmarks import test_mt_bench
from tests.evaluation.small_evaluation import evaluation_recipe, write_evaluation_files

Asked = dict[tuple[str, ...], float]  # what was shown -> the temperature


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turns")
    write_evaluation_files(folder)
    return folder


def answers(folder: Path, tmp_path: Path, silent: str = "") -> tuple[ArmAnswers, Asked]:
    """Of a model that says what it was asked last, and nothing to the silent question."""
    asked: Asked = {}

    def rows(recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> dict[str, AnswerRow]:
        for prompt in prompts:
            shown = tuple(message["content"] for message in prompt.messages)
            asked[shown] = recipe.answers.sample.decoding.temperature
            assert recipe.answers.sample.decoding.max_new_tokens == 1024
        return {
            prompt.prompt_id: {"answer": f"to {prompt.messages[-1]['content']}", "finish": "length"}
            for prompt in prompts
            if prompt.messages[-1]["content"] != silent
        }

    recipe = evaluation_recipe(folder)
    prompts = read_benchmark(recipe, "mt_bench", test_mt_bench.made(tmp_path))
    return ArmSampler(recipe, EvaluationArm("own", None)).answers(prompts, rows), asked


def test_the_second_turn_is_asked_behind_the_first_answer_at_the_categorys_temperature(
    folder: Path, tmp_path: Path
) -> None:
    given, asked = answers(folder, tmp_path)
    assert asked == {
        ("Write",): 0.7,
        ("Area?",): 0,
        ("Write", "to Write", "Shorter"): 0.7,
        ("Area?", "to Area?", "And?"): 0,
    }
    assert given.texts == {"81": ("to Write", "to Shorter"), "111": ("to Area?", "to And?")}
    assert (given.cut, given.unanswered, given.model) == (4, {}, f"{folder}/model")


def test_an_item_without_its_first_answer_is_asked_nothing_more(folder: Path, tmp_path: Path) -> None:
    given, asked = answers(folder, tmp_path, silent="Write")
    assert ("Write",) in asked
    assert len(asked) == 3
    assert (list(given.texts), given.unanswered) == (["111"], {"no_answer": 1})
