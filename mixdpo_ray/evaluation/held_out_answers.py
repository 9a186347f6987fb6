"""KeyedAnswers to held-out prompts by every model of a search, a comparison or a run: the same keys for all of them.

A worker that has just trained a model, or a task that has put one together, draws them where the model is, and leaves
them in a file. Whoever asks the judge later needs no model, and nothing is trained or drawn again where that fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.sample import SampleSettings
from mixdpo_ray.sampling.hf import HfEngine
from mixdpo_ray.sampling.prompts import prompts_of_pairs, prompts_of_source
from mixdpo_ray.sampling.sample import answerable_prompts, keyed_answers
from mixdpo_ray.tables.answer_table import Key
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.settings import ModelSettings

ANSWERS_FILE = "judged_answers.jsonl"  # in the folder of a run
KeyedAnswers = Mapping[Key, str]


@dataclass(frozen=True)
class HeldOutPrompts:
    """What every model is asked. Light: it is sent to workers."""

    texts: Mapping[str, str]  # by prompt_id, as a judge reads them
    asked: tuple[tuple[Any, ...], ...]  # fields of keyed_sampling.AskedRow
    decoding: DecodingSettings
    batch_size: int
    model: ModelSettings  # whose path is each time another one
    gpu: bool

    def answers_of(self, folder: str) -> KeyedAnswers:
        """What the model of this folder writes, by this process."""
        import torch

        from mixdpo_ray.scoring.reference import fetched
        from mixdpo_ray.training.keyed_sampling import AskedRow, sample_in_batches
        from mixdpo_ray.training.model import load_model
        from mixdpo_ray.training.tokenizer import load_tokenizer

        if self.gpu:
            torch.cuda.empty_cache()  # of the training that was here
        with fetched(self.model.model_copy(update={"path": folder})) as here:
            model = load_model(here).eval().to(torch.device("cuda" if self.gpu else "cpu"))
            tokenizer = load_tokenizer(here)
        rows = [AskedRow(*row) for row in self.asked]
        drawn = sample_in_batches(model, tokenizer, rows, self.decoding, self.batch_size)
        return {(row.prompt_id, row.draw): answer.text for row, answer in zip(rows, drawn, strict=True)}

    def leave_answers(self, file: str, folder: str) -> dict[str, float]:
        """Write the answers of the model in this folder to a file; a worker measures nothing of them."""
        write_keyed_answers(file, self.answers_of(folder))
        return {}

    def left_by(self, run: str) -> Callable[[str], dict[str, float]]:
        """What a worker calls with the model that it has exported (cluster/queued_job.py)."""
        return partial(self.leave_answers, storage.join(run, ANSWERS_FILE))


def held_out_prompts(
    recipe: Recipe, gpu: bool, *, most: int | None = None, untrained: bool
) -> tuple[HeldOutPrompts, KeyedAnswers]:
    """The prompts, and what the model before training answers, where it is wanted. Ray is connected.

    They are those of answers.sample.prompts.source, or of the recipe's held-out pairs; nothing is trained on them.
    """
    recipe = _of_untrained(recipe, most)
    source = recipe.answers.sample.prompts.source
    engine = HfEngine(recipe)
    found = prompts_of_pairs(recipe) if source is None else prompts_of_source(recipe, source)
    prompts = answerable_prompts(recipe, engine, found)
    settings = recipe.answers.sample
    held_out = HeldOutPrompts(
        texts={prompt.prompt_id: text_of_prompt(prompt.messages) for prompt in prompts},
        asked=tuple(map(tuple, engine.asked_rows(prompts, settings.answers_each))),
        decoding=settings.decoding,
        batch_size=settings.batch_size,
        model=recipe.model.model_copy(update={"tokenizer": None, "revision": None, "lora": None, "reference": None}),
        gpu=gpu,
    )
    if untrained:
        say("judge: answers of the model before training, which all others are compared with")
    return held_out, keyed_answers(recipe, engine, prompts) if untrained else {}


def _of_untrained(recipe: Recipe, most: int | None) -> Recipe:
    sample = recipe.answers.sample
    asked = sample.prompts.model_copy(update={"split": "heldout", **({"most": most} if most else {})})
    sample = SampleSettings.model_validate(
        {**sample.model_dump(), "model": None, "revision": None, "engine": "hf", "prompts": asked}
    )
    output = recipe.output.model_copy(update={"name": f"{recipe.output.name}-untrained"})
    answers = recipe.answers.model_copy(update={"sample": sample})
    return recipe.model_copy(update={"answers": answers, "output": output})


def text_of_prompt(messages: Sequence[Message]) -> str:
    """A prompt of one turn as it is; of several, each with who spoke."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def write_keyed_answers(path: str, answers: KeyedAnswers) -> None:
    rows = ({"prompt_id": prompt, "draw": draw, "answer": text} for (prompt, draw), text in answers.items())
    storage.write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_keyed_answers(path: str) -> KeyedAnswers | None:
    """None where there is no file."""
    if not storage.exists(path):
        return None
    rows = map(json.loads, storage.read_bytes(path).splitlines())
    return {(row["prompt_id"], row["draw"]): row["answer"] for row in rows}
