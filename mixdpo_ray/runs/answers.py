"""Answers of a trained model to prompts, beside those of the model it started from: a first look, one of each.

They are drawn as jobs/sample.py draws them, which is for many prompts, many answers, and whatever reads them.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.errors import RecipeError, StorageError
from mixdpo_ray.pairs.pair import Message, prompt_hash
from mixdpo_ray.sampling.model import model_before_run, model_of_run
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.model_files import refuse_missing_folder
from mixdpo_ray.training.settings import ModelSettings

GAP = "  "


def answers_parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run_or_model", help="outputs/runs/NAME for before and after; or a model's folder or Hub name")
    parser.add_argument("--prompt", action="append", default=[], help="may be given several times")
    parser.add_argument("--file", help="a text file with one prompt per line")
    parser.add_argument("--max-new-tokens", type=int, default=256, help="longest answer (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7, help="0: the likeliest token (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="prompts at once (default: %(default)s)")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], help="the run's own, or bfloat16")
    return parser


@dataclass(frozen=True)
class AnswersReport:
    prompts: Sequence[str]
    columns: Mapping[str, Sequence[str]]  # of each model, an answer to each prompt

    def describe(self) -> str:
        titles = list(self.columns)
        return "\n".join(
            f"\n> {prompt}\n{side_by_side(titles, [column[number] for column in self.columns.values()])}"
            for number, prompt in enumerate(self.prompts)
        )


def answer_prompts(arguments: argparse.Namespace) -> AnswersReport:
    prompts = read_prompts(arguments)
    columns = models(arguments.run_or_model, arguments.dtype)
    answers = {title: answers_by(model, prompts, arguments) for title, model in columns.items()}
    return AnswersReport(prompts, answers)


def read_prompts(arguments: argparse.Namespace) -> list[str]:
    if arguments.max_new_tokens < 1 or arguments.temperature < 0 or arguments.batch_size < 1:
        raise RecipeError("--max-new-tokens and --batch-size must be at least 1, --temperature at least 0")
    prompts = list(arguments.prompt)
    if arguments.file:
        lines = storage.read_bytes(arguments.file).decode("utf-8").splitlines()
        prompts += [line.strip() for line in lines if line.strip()]
    if not prompts:
        raise RecipeError("no prompt: give --prompt TEXT, or --file with one prompt per line")
    return prompts


def models(folder: str, dtype: str | None) -> dict[str, ModelSettings]:
    """The columns of the answer: before and after of a run, or the one model."""
    changed = {"dtype": dtype} if dtype else {}
    before, after = model_before_run(folder), model_of_run(folder)
    if before is not None and after is not None:
        return {"before": before.model_copy(update=changed), "after": after.model_copy(update=changed)}
    if not storage.is_local(folder):
        record = RunRecord(folder).recipe_file
        raise StorageError(f"{record} does not exist: give the folder of a run; models are read from disk")
    refuse_missing_folder("run or model", folder)
    return {"answer": ModelSettings.model_validate({"path": folder, **changed})}


def answers_by(settings: ModelSettings, prompts: Sequence[str], arguments: argparse.Namespace) -> list[str]:
    """One model is in memory at a time."""
    say(f"generate: loading {settings.path}")
    import torch
    import transformers

    from mixdpo_ray.scoring.reference import fetched
    from mixdpo_ray.training.generation import chat_prompt_ids
    from mixdpo_ray.training.keyed_sampling import AskedRow, sample_in_batches
    from mixdpo_ray.training.model import load_model
    from mixdpo_ray.training.tokenizer import load_tokenizer

    transformers.logging.set_verbosity_error()
    with fetched(settings) as here:
        model = load_model(here).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = load_tokenizer(here)
    made_for = getattr(model.config, "max_position_embeddings", None)
    if made_for and arguments.max_new_tokens >= made_for:
        say(f"warning: the model was made for {made_for} tokens with the prompt: lower --max-new-tokens")
    asked = [
        AskedRow(prompt_hash(turns), 0, chat_prompt_ids(tokenizer, turns))
        for turns in ([Message(role="user", content=prompt)] for prompt in prompts)
    ]
    decoding = DecodingSettings(
        temperature=arguments.temperature, max_new_tokens=arguments.max_new_tokens, seed=arguments.seed
    )
    drawn = sample_in_batches(model, tokenizer, asked, decoding, arguments.batch_size)
    return [answer.text.strip() for answer in drawn]


def side_by_side(titles: Sequence[str], texts: Sequence[str]) -> str:
    width = (shutil.get_terminal_size((120, 0)).columns - len(GAP) * (len(titles) - 1)) // len(titles)
    columns = [[title, "-" * len(title), *wrapped(text, width)] for title, text in zip(titles, texts, strict=True)]
    rows = itertools.zip_longest(*columns, fillvalue="")
    return "\n".join(GAP.join(cell.ljust(width) for cell in row).rstrip() for row in rows)


def wrapped(text: str, width: int) -> list[str]:
    """Line breaks of the answer are kept."""
    return [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
