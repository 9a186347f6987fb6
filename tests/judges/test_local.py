"""A model of this cluster's as the judge: its own words and log-probs, once for each question, and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mixdpo_ray.errors import ModelError
from mixdpo_ray.judges.judge import open_judge
from mixdpo_ray.judges.local import LocalJudge
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from tests.recipe.small_recipe import write_answers_recipe

TEXTS = ("sort d a c", "reverse a b c d e f", "double a b", "sort d a c")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local-judge")
    write_tiny_model(folder / "other", seed=1)
    judge = {"engine": "hf", "model": f"{folder}/model", "batch_size": 2}
    write_answers_recipe(folder, 40, 0.2, {"judge": judge})
    return folder


def recipe(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(str(folder / "recipe.yaml"), overrides)


def questions(top_logprobs: int = 0) -> list[ChatQuestion]:
    return [
        ChatQuestion(({"role": "user", "content": text},), max_tokens=6, top_logprobs=top_logprobs) for text in TEXTS
    ]


def likeliest(folder: Path, text: str) -> dict[str, float]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mixdpo_ray.training.generation import chat_prompt_ids

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = torch.tensor([chat_prompt_ids(tokenizer, [{"role": "user", "content": text}])])
    with torch.inference_mode():
        logps, tokens = torch.log_softmax(model(ids).logits[0, -1], -1).topk(5)
    return {tokenizer.decode([token]): float(logp) for token, logp in zip(tokens.tolist(), logps, strict=True)}


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_replies_are_the_models_own_and_given_once(folder: Path) -> None:
    with open_judge(recipe(folder)) as judge:
        first = judge.ask(questions(5))
        assert (judge.progress.answered, judge.progress.cached) == (3, 0)
        assert first[0] == first[3]
        assert all(reply.finish in ("stop", "length") and reply.input_tokens for reply in first)
        told, expected = first[1].first_logps, likeliest(folder, TEXTS[1])
        assert told is not None
        assert told == pytest.approx(expected, abs=1e-4)
    with open_judge(recipe(folder, "answers.judge.batch_size=1")) as again:
        assert again.ask(questions(5)) == first
        assert (again.progress.answered, again.progress.cached, again.progress.spent.calls) == (0, 3, 0)
        assert [reply.text for reply in again.ask(questions())] == [reply.text for reply in first]  # greedy
        assert again.progress.answered == 3
    with open_judge(recipe(folder, f"answers.judge.model={folder}/other")) as other:
        assert other.ask(questions(5)) != first
        assert other.progress.cached == 0


def test_a_question_that_it_cannot_read_is_a_failure_with_a_reason(folder: Path) -> None:
    judge = LocalJudge(recipe(folder))
    end = judge._tokenizer.all_special_tokens[-1]
    odd = ChatQuestion(({"role": "user", "content": f"an answer {end} and more"},), max_tokens=4)
    long = ChatQuestion(({"role": "user", "content": "sort " + "a " * 5000},), max_tokens=4)
    replies = judge.ask([odd, long])
    assert replies[0] == ChatReply.failed("what is to be judged holds a control token of the judge's own")
    assert replies[1] == ChatReply.failed("the question is longer than the judge can read")
    assert judge.progress.failed == 2


def test_a_judge_that_is_not_there_is_named_by_its_setting(folder: Path) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    for name, told in ((f"{folder}/none", "answers.judge.model"), (f"{folder}/empty", "neither a run nor a model")):
        with pytest.raises(ModelError, match=told):
            LocalJudge(recipe(folder, f"answers.judge={json.dumps({'engine': 'hf', 'model': name})}"))
