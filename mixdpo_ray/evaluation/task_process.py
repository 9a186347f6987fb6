"""The process in which lm-eval works: it seeds every global generator and runs git, which no worker of ours should.

It reads what is asked from its input, and writes each task's figures to a file as soon as they are there.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from mixdpo_ray import storage
from mixdpo_ray.training.settings import ModelSettings

ALIKE_MEANS = 1e-6
ORPHAN_SECONDS = 1.0
UNFILTERED = "none"


@dataclass(frozen=True)
class AskedTask:
    name: str
    shots: int
    file: str  # of its figures


@dataclass(frozen=True)
class TaskRequest:
    model: ModelSettings  # on this machine's disk
    tasks: tuple[AskedTask, ...]
    folder: str | None
    most: int | None
    batch_size: int
    chat_template: bool
    gpu: bool

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "model": self.model.model_dump(mode="json")})

    @classmethod
    def from_json(cls, text: str) -> Self:
        row = json.loads(text)
        tasks = tuple(AskedTask(**task) for task in row.pop("tasks"))
        return cls(model=ModelSettings.model_validate(row.pop("model")), tasks=tasks, **row)


@dataclass(frozen=True)
class TaskFigures:
    """What a model reached on one task, by metric; filtered answers' metrics carry the filter: strict-match/em."""

    task: str
    shots: int
    questions: int
    values: Mapping[str, float]
    by_question: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # of metrics that are means of them

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        return cls(**json.loads(content))


def run_asked_tasks() -> None:
    """Do what standard input asks for, and end where whoever asked is gone."""
    parent = os.getppid()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    request = TaskRequest.from_json(sys.stdin.read())
    model, manager = _model(request), _task_manager(request)
    for task in request.tasks:
        storage.write_bytes(task.file, _figures(request, task, model, manager).to_json())


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def _model(request: TaskRequest) -> Any:
    from lm_eval.models.huggingface import HFLM

    from mixdpo_ray.training.tokenizer import load_tokenizer

    model = request.model
    return HFLM(
        pretrained=model.path,
        revision=model.revision or "main",
        tokenizer=load_tokenizer(model),
        dtype=model.dtype,
        attn_implementation=model.attn_implementation,
        trust_remote_code=model.trust_remote_code,
        device="cuda" if request.gpu else "cpu",
        batch_size=request.batch_size,
    )


def _task_manager(request: TaskRequest) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=request.folder)


def _figures(request: TaskRequest, task: AskedTask, model: Any, manager: Any) -> TaskFigures:
    import lm_eval

    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[task.name],
        num_fewshot=task.shots,
        limit=request.most,
        apply_chat_template=request.chat_template,
        task_manager=manager,
        bootstrap_iters=0,
    )
    return figures_of(task, found)


def figures_of(task: AskedTask, found: Mapping[str, Any]) -> TaskFigures:
    """Metrics of a task or of a group, whose questions are those of its parts."""
    values = dict(_values(found["results"][task.name]))
    by_question = {}
    for name, value in values.items():
        questions = dict(_by_question(found["samples"], name))
        if questions and abs(math.fsum(questions.values()) / len(questions) - value) < ALIKE_MEANS:
            by_question[name] = questions
    count = sum(len({sample["doc_id"] for sample in samples}) for samples in found["samples"].values())
    return TaskFigures(task.name, task.shots, count, values, by_question)


def _values(results: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Metrics from keys such as `acc,none` and `exact_match,strict-match`."""
    for key, value in results.items():
        metric, comma, filtered = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            yield metric if filtered == UNFILTERED else f"{filtered}/{metric}", float(value)


def _by_question(samples: Mapping[str, Any], name: str) -> Iterator[tuple[str, float]]:
    filtered, _, metric = name.rpartition("/")
    for part, found in samples.items():
        for sample in found:
            value = sample.get(metric)
            if sample["filter"] == (filtered or UNFILTERED) and isinstance(value, int | float):
                yield f"{part}/{sample['doc_id']}", float(value)
