"""A tiny model, a run whose model is another one, prompts of a playground, and recipes that evaluate them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mixdpo_ray.judging.asking import AskingProgress
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from tests.recipe.small_recipe import write_answers_recipe

PROMPTS = ("sort d a c", "reverse a b c", "double a b", "swap p o n m", "sort a b", "double c d e")


def write_evaluation_files(folder: Path) -> None:
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    answers = {"sample": {"decoding": {"max_new_tokens": 8}}, "judge": {"engine": "playground"}}
    write_answers_recipe(folder, 60, 0.3, answers)
    run = folder / "out" / "runs" / "recipe"
    write_tiny_model(run / "model", seed=1)
    recorded = {"recipe": evaluation_recipe(folder).to_dict(), "identity": {}}
    (run / "recipe.json").write_text(json.dumps(recorded))


def evaluation_recipe(folder: Path, *overrides: str) -> Recipe:
    return load_recipe(str(folder / "recipe.yaml"), [f"output.storage_path={folder / 'out'}", *overrides])


def own(folder: Path, **settings: Any) -> str:
    """The override that names prompts of one's own."""
    return f"answers.evaluate.benchmarks={json.dumps({'own': {'prompts': f'{folder}/prompts.jsonl', **settings}})}"


class RuleJudge:
    """A judge that says what a rule says of what it is shown, and remembers what it was asked."""

    name, progress = "a rule", AskingProgress()

    def __init__(self, rule: Callable[[str], ChatReply]):
        self.rule = rule
        self.asked: list[str] = []

    def ask(self, questions: Sequence[ChatQuestion], *, title: str = "", unit: str = "") -> list[ChatReply]:
        shown = ["\n".join(str(message["content"]) for message in question.messages) for question in questions]
        self.asked += shown
        return [self.rule(text) for text in shown]
