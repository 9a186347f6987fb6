"""Downstream tasks by lm-eval: for each arm a process of its own on a node of the cluster, and no task twice.

<storage>/tasks/<fingerprint>/<task>.json   figures of one model on one task, question by question; both are hashes

Intervals and differences are those of all other scores: of questions drawn with replacement, the same for all arms.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import ray

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.benchmarks.resampling import Ratio, difference, with_interval
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.node_labels import gpu_node_options
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.errors import EvaluationError, RecipeError
from mixdpo_ray.evaluation.arms import EvaluationArm
from mixdpo_ray.evaluation.results import LM_EVAL_KIND, ArmDifference, EvaluatedArm, EvaluatedBenchmark
from mixdpo_ray.evaluation.task_process import AskedTask, TaskFigures, TaskRequest
from mixdpo_ray.recipe.extras import Extra, lacks
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.recipe.tasks import TasksSettings
from mixdpo_ray.sampling.model import sampled_model, weights_identity
from mixdpo_ray.training.settings import ModelSettings

LM_EVAL = Extra("lm-eval", "lm_eval", "answers.evaluate.tasks", "leave that out")
PROGRAM = "from mixdpo_ray.evaluation.task_process import run_asked_tasks; run_asked_tasks()"
TASKS_FOLDER = "tasks"  # beneath output.storage_path
MAIN_METRICS = ("acc", "exact_match", "f1")  # the first of these that a task has is the one that arms are compared by
SAID = 300  # signs of what a process said last


def refuse_impossible_tasks(recipe: Recipe) -> None:
    """An error before any work where tasks are asked for and cannot be run."""
    settings = recipe.answers.evaluate.tasks
    if settings is None:
        return
    if lacks(LM_EVAL.module):
        raise RecipeError(LM_EVAL.lacking())
    if settings.folder is not None and not Path(settings.folder).is_dir():
        raise RecipeError(f"answers.evaluate.tasks.folder {settings.folder!r} is no folder; correct the path")
    if recipe.answers.sample.engine == "http":
        raise RecipeError(
            "answers.evaluate.tasks needs the models themselves, and answers.sample.engine http has none: "
            "set it to hf, or leave tasks out"
        )


def downstream(recipe: Recipe, arms: Sequence[EvaluationArm]) -> tuple[EvaluatedBenchmark, ...]:
    """Figures of every arm that is a model on every task that the recipe asks for. Ray is connected."""
    settings = recipe.answers.evaluate.tasks
    models = {} if settings is None else dict(_models(recipe, arms))
    if settings is None or not models:
        return ()
    asked = {name: _asked(recipe, settings, model) for name, model in models.items()}
    _run_missing(recipe, settings, models, asked)
    found = {
        name: [TaskFigures.from_json(storage.read_bytes(task.file)) for task in tasks] for name, tasks in asked.items()
    }
    against = recipe.answers.evaluate.against
    against = against if against in models else next(iter(models))
    return tuple(
        evaluated_task({name: figures[number] for name, figures in found.items()}, models, against)
        for number in range(len(settings.shots))
    )


def tasks_in_words(recipe: Recipe, arms: Sequence[EvaluationArm]) -> str:
    """What a dry run tells of them; nothing where there are none."""
    settings = recipe.answers.evaluate.tasks
    models = [arm for arm in arms if arm.file("") is None]
    if settings is None or not models:
        return ""
    told = ", ".join(f"{task} ({shots_text(shots)})" for task, shots in settings.shots.items())
    return f"tasks: {told} by {len(models)} models, in lm-eval, at no price"


def shots_text(shots: int) -> str:
    return "one shot" if shots == 1 else f"{shots} shots"


def _models(recipe: Recipe, arms: Sequence[EvaluationArm]) -> Iterator[tuple[str, ModelSettings]]:
    for arm in arms:
        if arm.file("") is None:
            yield arm.name, sampled_model(arm.sampling(recipe, recipe.answers.sample.decoding))


def _asked(recipe: Recipe, settings: TasksSettings, model: ModelSettings) -> tuple[AskedTask, ...]:
    decides = {
        "weights": weights_identity(model),
        "model": model.model_dump(include={"tokenizer", "dtype", "attn_implementation", "chat_template"}),
        "settings": settings.model_dump(include={"most", "chat_template"}),
        "own": _digest(settings.folder),
        "lm_eval": version(LM_EVAL.module),
    }
    folder = storage.join(storage.absolute(recipe.output.storage_path), TASKS_FOLDER, fingerprint(decides))
    return tuple(
        AskedTask(task, shots, storage.join(folder, f"{fingerprint({'task': task, 'shots': shots})}.json"))
        for task, shots in settings.shots.items()
    )


def _digest(folder: str | None) -> str:
    """A hash of all files in it: a changed task is another task."""
    found = hashlib.sha256()
    for path in sorted(Path(folder).rglob("*")) if folder else ():
        if path.is_file():
            found.update(f"{path.relative_to(folder or '')}\n".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _run_missing(
    recipe: Recipe,
    settings: TasksSettings,
    arms: Mapping[str, ModelSettings],
    asked: Mapping[str, Sequence[AskedTask]],
) -> None:
    gpu, folder = uses_gpu(recipe.cluster), settings.folder and storage.absolute(settings.folder)
    on_gpu = {"num_gpus": 1, **gpu_node_options(recipe.cluster)} if gpu else {}
    runner = ray.remote(_run_tasks).options(num_cpus=1, **on_gpu)
    running: dict[ray.ObjectRef, str] = {}
    files: set[str] = set()
    for name, model in arms.items():
        missing = tuple(task for task in asked[name] if not storage.exists(task.file) and task.file not in files)
        files.update(task.file for task in missing)
        if missing:
            say(f"tasks: {', '.join(task.name for task in missing)} by {name}")
            request = TaskRequest(model, missing, folder, **settings.model_dump(exclude={"shots", "folder"}), gpu=gpu)
            running[runner.remote(request)] = name
    with plain_errors():
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            ray.get(done)
            say(f"tasks: {running.pop(done)} is done")


def _run_tasks(request: TaskRequest) -> None:
    """What a node of the cluster does."""
    from mixdpo_ray.scoring.reference import fetched

    path = os.pathsep.join(filter(None, sys.path))
    with fetched(request.model) as here:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=replace(request, model=here).to_json(),
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1].strip()[-SAID:]
        names = ", ".join(task.name for task in request.tasks)
        raise EvaluationError(
            f"answers.evaluate.tasks: lm-eval ended with status {ran.returncode} in {names} ({said}); tasks that were "
            "done are kept: correct that and repeat"
        )


def evaluated_task(
    figures: Mapping[str, TaskFigures], models: Mapping[str, ModelSettings], against: str
) -> EvaluatedBenchmark:
    """One task as a benchmark without a judge, so that it is shown as all others are."""
    one = next(iter(figures.values()))
    ratios = _ratios(figures)
    arms = tuple(
        EvaluatedArm(
            arm,
            models[arm].path,
            told.questions,
            told.questions,
            {name: with_interval(ratio) for name, ratio in ratios[arm].items()},
            no_score="" if ratios[arm] else "none of its metrics is a mean over questions",
            notes=tuple(_notes(told)),
        )
        for arm, told in figures.items()
    )
    plain = [name.rpartition("/")[2] for name in one.by_question]
    main = next((name for name in MAIN_METRICS if name in plain), plain[0] if plain else "acc")
    shots = f"{LM_EVAL_KIND}, {shots_text(one.shots)}"
    result = EvaluatedBenchmark(one.task, shots, main, one.questions, "", against if len(arms) > 1 else "", arms)
    return replace(result, differences=tuple(_differences(result, ratios)))


def _ratios(figures: Mapping[str, TaskFigures]) -> dict[str, dict[str, Ratio]]:
    """Each arm's by metric. A metric is a share where no arm has a value beyond 0 and 1: all have one scale."""
    every = [one for told in figures.values() for one in told.by_question.items()]
    numbers = {name for name, values in every if not all(0 <= value <= 1 for value in values.values())}
    return {
        arm: {name: Ratio.mean(values, percent=name not in numbers) for name, values in told.by_question.items()}
        for arm, told in figures.items()
    }


def _differences(result: EvaluatedBenchmark, ratios: Mapping[str, Mapping[str, Ratio]]) -> Iterator[ArmDifference]:
    for arm in ratios:
        for name in result.headlines if result.against not in ("", arm) else ():
            if name in ratios[arm] and name in ratios[result.against]:
                apart = difference(ratios[arm][name], ratios[result.against][name])
                yield ArmDifference(arm, result.against, name, apart)


def _notes(told: TaskFigures) -> Iterator[str]:
    for name, value in told.values.items():
        if name not in told.by_question:
            yield f"{name} {value:.4g}, which is no mean over questions: its interval is not known"
