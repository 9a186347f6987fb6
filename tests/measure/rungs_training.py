"""Playgrounds, configurations drawn from the default search space, and the trainings that rungs are compared by.

A configuration is trained three times: the whole curriculum, evaluated along the way (the naive rungs are its early
part, with the schedule of the whole length), and the whole curriculum thinned by 3 and by 9 (the safe rungs).
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.job import make_job
from mixdpo_ray.scoring.reference import reference
from mixdpo_ray.settings import Settings
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground.yaml"
THINS = (9, 3, 1)
S = TypeVar("S", bound=Settings)
ACCURACY, PAIRS = "eval_rewards/accuracies", "eval_pairs"
TIES = "margin_0-0.5"  # on the rating grid only margin 0 lies there, and its chosen answer was chosen by lot


@dataclass(frozen=True)
class Sizes:
    prompts: int
    base_steps: int
    global_batch: int
    epochs: int
    held_out: float  # share of the pairs


@dataclass(frozen=True)
class Arena:
    """A seed's playground, prepared once: what all its trainings read."""

    seed: int
    job: TrainingJob
    configurations: tuple[Mapping[str, float], ...]


def playground_folder(folder: Path, seed: int, sizes: Sizes) -> PlaygroundFolder:
    settings = PlaygroundSettings(seed=seed, prompts=sizes.prompts, base_steps=sizes.base_steps)
    return PlaygroundFolder(folder / "world", settings)


def make_playground(folder: Path, seed: int, sizes: Sizes) -> None:
    playground = playground_folder(folder, seed, sizes)
    if not playground.exists:
        playground.make()


def make_arena(folder: Path, seed: int, sizes: Sizes, configurations: int) -> Arena:
    """From the seed's playground. Ray must be connected."""
    recipe = make_recipe(folder, playground_folder(folder, seed, sizes), sizes)
    table = prepared_table(recipe)
    job = make_job(recipe, table)
    job = job.with_reference(str(reference(recipe, table, job)))
    return Arena(seed, job, draw_configurations(table, seed, configurations, recipe.train.optimizer.learning_rate))


def make_recipe(folder: Path, playground: PlaygroundFolder, sizes: Sizes) -> Recipe:
    """Of the playground; with threshold 0 every pair is easy, so references cover what any threshold needs."""
    overrides = {
        "model.path": playground.base,
        "data.source.path": playground.pairs,
        "data.heldout.fraction": sizes.held_out,
        "data.heldout.max_pairs": sizes.prompts,
        "curriculum.threshold.value": 0,
        "train.global_batch_size": sizes.global_batch,
        "train.num_train_epochs": sizes.epochs,
        "train.evaluation.per_device_eval_batch_size": 64,
        "train.checkpoints.every_steps": "null",
        "deepspeed.zero_stage": 0,
        "output.storage_path": folder,
        "output.name": "whole",
    }
    return load_recipe(str(RECIPE), [f"{name}={value}" for name, value in overrides.items()])


def draw_configurations(
    table: PreparedTable, seed: int, count: int, learning_rate: float
) -> tuple[Mapping[str, float], ...]:
    """At random from the default space. Thresholds lie on the rating grid and leave at most half of the pairs hard."""
    draw = random.Random(f"{seed} configurations")
    margins = table.index("train").margin
    thresholds = [float(margin) for margin in np.unique(margins) if np.mean(margins < margin - 1e-9) <= 0.5]
    ranges = {
        "objective.beta": (0.01, 0.5),
        "train.optimizer.learning_rate": (learning_rate / 5, learning_rate * 5),
        "train.schedule.stage2_lr_ratio": (0.1, 2.0),
    }
    return tuple(
        {
            "curriculum.threshold.value": draw.choice(thresholds),
            **{name: math.exp(draw.uniform(math.log(low), math.log(high))) for name, (low, high) in ranges.items()},
        }
        for _ in range(count)
    )


def changed(settings: S, **changes: Any) -> S:
    return type(settings).model_validate({**settings.model_dump(), **changes})


def configured(job: TrainingJob, settings: Mapping[str, float], thin: int, folder: Path) -> TrainingJob:
    train = job.train
    job = replace(
        job.without_export(),
        curriculum=changed(job.curriculum, threshold={"value": settings["curriculum.threshold.value"]}, thin=thin),
        objective=DPO(beta=settings["objective.beta"]),
        train=changed(
            train,
            optimizer=changed(train.optimizer, learning_rate=settings["train.optimizer.learning_rate"]),
            schedule=changed(train.schedule, stage2_lr_ratio=settings["train.schedule.stage2_lr_ratio"]),
        ),
        run=str(folder),
        fingerprint=folder.name,
    )
    if thin > 1:
        return job
    steps = job.steps(job.plan(PreparedTable.open(job.prepared)))
    every = max(1, round(steps / max(THINS)))
    return replace(job, train=changed(job.train, evaluation=changed(train.evaluation, every_steps=every)))


def train_once(arena: Arena, number: int, thin: int, folder: Path) -> dict[str, Any]:
    """One training, whose folder is deleted; what is left is the line that it returns."""
    settings = arena.configurations[number]
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    run_training(configured(arena.job, settings, thin, folder), World())
    seconds = round(time.monotonic() - began, 1)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    shutil.rmtree(folder)
    return {
        "seed": arena.seed, "configuration": number, "thin": thin, "settings": dict(settings), "seconds": seconds,
        "evaluations": evaluations(lines),
    }  # fmt: skip


def evaluations(lines: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Each with what had been trained before it, and both scores: of all held-out pairs, and without the ties."""
    steps = [line for line in lines if line.get("kind") != "eval"]
    found = []
    for line in lines:
        if line.get("kind") != "eval":
            continue
        before = [step for step in steps if step["step"] < line["step"]]
        found.append(
            {
                "step": line["step"],
                "share": line["step"] / len(steps),
                "pairs": sum(step["pairs/easy"] + step["pairs/hard"] for step in before),
                "tokens": round(sum(step["perf/tokens_per_second"] * step["perf/seconds"] for step in before)),
                "all": line[ACCURACY],
                "clear": without_ties(line),
            }
        )
    return found


def without_ties(metrics: Mapping[str, float]) -> float:
    """Accuracy over the held-out pairs whose ratings differ."""
    buckets = [name.removeprefix(f"{PAIRS}/") for name in metrics if name.startswith(f"{PAIRS}/")]
    counts = {bucket: metrics[f"{PAIRS}/{bucket}"] for bucket in buckets if bucket != TIES}
    return sum(metrics[f"{ACCURACY}/{bucket}"] * count for bucket, count in counts.items()) / sum(counts.values())
