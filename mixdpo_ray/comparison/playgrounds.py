"""Playgrounds, one for each seed of a comparison, made side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray

from mixdpo_ray import storage
from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.comparison.arms import playground_folder
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.playground.model_quality import model_quality
from mixdpo_ray.recipe.recipe import Recipe


def playground_of(recipe: Recipe, seed: int) -> PlaygroundFolder | None:
    settings = recipe.compare.playground
    if settings is None:
        return None
    return PlaygroundFolder(
        Path(storage.absolute(playground_folder(recipe, seed))), settings.model_copy(update={"seed": seed})
    )


def judge_of(recipe: Recipe, seed: int) -> Callable[[str], dict[str, float]] | None:
    """What a worker calls with the model that it has exported."""
    playground = playground_of(recipe, seed)
    return None if playground is None else partial(_quality, playground, recipe.compare.answers_each)


def _quality(playground: PlaygroundFolder, answers_each: int, model: str) -> dict[str, float]:
    return model_quality(playground, Path(model), answers_each)


def make_playgrounds(recipe: Recipe) -> None:
    wanted = [
        playground
        for seed in recipe.compare.seeds
        if (playground := playground_of(recipe, seed)) and not playground.exists
    ]
    _wait_for([_remote(_make).remote(playground) for playground in wanted], "make", "playground")


def judge_untrained(recipe: Recipe, folders: Sequence[str]) -> None:
    """The base models as they are; into the folder of each seed."""
    tasks = []
    for seed, folder in zip(recipe.compare.seeds, folders, strict=True):
        playground, record = playground_of(recipe, seed), RunRecord(folder)
        if playground is not None and record.summary() is None:
            tasks.append(_remote(_judge).remote(playground, recipe.compare.answers_each, record))
    _wait_for(tasks, "judge", "untrained model")


def _wait_for(tasks: list[Any], title: str, unit: str) -> None:
    if not tasks:
        return
    wanted = f"to {title}: {len(tasks)} {unit}{'' if len(tasks) == 1 else 's'}"
    say(wanted, meanwhile=wanted)
    with Counter(title, unit, len(tasks)) as progress:
        while tasks:
            done, tasks = ray.wait(tasks, timeout=5)  # to say now and then that it goes on
            ray.get(done)
            progress.add(len(done))


def _remote(work: Callable[..., None]) -> Any:
    return ray.remote(num_cpus=1)(work)


def _alone() -> None:
    """Two processes with two threads each on two cores take many times as long as with one."""
    import os

    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # saving a model makes accelerate import the engine


def _make(playground: PlaygroundFolder) -> None:
    _alone()
    playground.make()


def _judge(playground: PlaygroundFolder, answers_each: int, record: RunRecord) -> None:
    _alone()
    record.write_summary({"judged": model_quality(playground, playground.base, answers_each), "seconds": 0.0})
