"""Playground worlds, one for each seed of a comparison, made side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ray

from mixdpo_ray import storage
from mixdpo_ray.bar import Counter
from mixdpo_ray.cluster.run_record import SUMMARY
from mixdpo_ray.comparison.arms import world_folder
from mixdpo_ray.playground.build import WorldFolder
from mixdpo_ray.playground.score import score
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.storage import join


def world_of(recipe: Recipe, seed: int) -> WorldFolder | None:
    settings = recipe.compare.world
    if settings is None:
        return None
    return WorldFolder(Path(storage.absolute(world_folder(recipe, seed))), settings.model_copy(update={"seed": seed}))


def judge_of(recipe: Recipe, seed: int) -> Callable[[str], dict[str, float]] | None:
    """What a worker calls with the model that it has exported."""
    world = world_of(recipe, seed)
    return None if world is None else partial(_score, world, recipe.compare.answers_each)


def _score(world: WorldFolder, answers_each: int, model: str) -> dict[str, float]:
    return score(world, Path(model), answers_each)


def make_worlds(recipe: Recipe) -> None:
    wanted = [world for seed in recipe.compare.seeds if (world := world_of(recipe, seed)) and not world.exists]
    _wait_for([_remote(_make).remote(world) for world in wanted], "make", "world")


def judge_untrained(recipe: Recipe, folders: Sequence[str]) -> None:
    """The models of the worlds as they are; into the folder of each seed."""
    tasks = []
    for seed, folder in zip(recipe.compare.seeds, folders, strict=True):
        world = world_of(recipe, seed)
        if world is not None and not storage.exists(join(folder, SUMMARY)):
            tasks.append(_remote(_judge).remote(world, recipe.compare.answers_each, join(folder, SUMMARY)))
    _wait_for(tasks, "judge", "untrained model")


def _wait_for(tasks: list[Any], title: str, unit: str) -> None:
    if not tasks:
        return
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


def _make(world: WorldFolder) -> None:
    _alone()
    world.make()


def _judge(world: WorldFolder, answers_each: int, path: str) -> None:
    _alone()
    summary = {"judged": score(world, world.base, answers_each), "seconds": 0.0}
    storage.write_bytes(path, json.dumps(summary, indent=2).encode())
