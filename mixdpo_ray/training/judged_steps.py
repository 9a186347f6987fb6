"""Checkpoints that a judge is to look at: which steps, what their models wrote, and what was said of it.

<run>/judged/step-<k>.jsonl    answers of the model after k steps: from then on its checkpoint may go
<run>/judged/step-<k>.json     what the judge said, a line of metrics with "kind": "judge"
<run>/judged/judge.json        whose word that is, and how the answers were drawn

A checkpoint stays until it has answered. Rank 0 alone writes metrics.jsonl while workers train, so that what a judge
says lies in files of its own, each written whole, and joins the other lines when they have gone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.training.settings import CheckpointJudgeSettings

JUDGED_FOLDER, JUDGEMENT = "judged", "judge"  # of a run; the kind of a line
JUDGE_FILE = "judge.json"
_FILE = re.compile(r"step-(\d+)\.jsonl?")


def judged_folder(run: str) -> str:
    return storage.join(run, JUDGED_FOLDER)


def answers_file(run: str, step: int) -> str:
    return storage.join(judged_folder(run), f"step-{step}.jsonl")


def judgement_file(run: str, step: int) -> str:
    return storage.join(judged_folder(run), f"step-{step}.json")


def steps_to_judge(settings: CheckpointJudgeSettings | None, steps: int) -> list[int]:
    """Every n-th, and the last one."""
    if settings is None:
        return []
    return sorted({*range(settings.every_steps, steps, settings.every_steps), steps})


def waits_for_judge(run: str, settings: CheckpointJudgeSettings | None) -> Callable[[int], bool]:
    """Whether a step's checkpoint has still to be asked, and must stay."""
    every = settings.every_steps if settings is not None else 0
    return lambda step: bool(every) and step % every == 0 and not storage.exists(answers_file(run, step))


def write_judgement(run: str, step: int, metrics: Mapping[str, float]) -> None:
    line = {"kind": JUDGEMENT, "step": step, **metrics}
    storage.write_bytes(judgement_file(run, step), json.dumps(line, allow_nan=False).encode())


def write_judge(run: str, judge: Mapping[str, Any]) -> None:
    storage.write_bytes(storage.join(judged_folder(run), JUDGE_FILE), json.dumps(judge, indent=2).encode())


def read_judge(run: str) -> dict[str, Any] | None:
    """Whose word the judgements are; none where there is no word yet, or an earlier version did not tell."""
    path = storage.join(judged_folder(run), JUDGE_FILE)
    return json.loads(storage.read_bytes(path)) if steps_judged(run) and storage.exists(path) else None


def forget_judgements(run: str, after: int) -> None:
    """Forget what was said of steps behind the checkpoint at which the run continues: they are trained again."""
    for name in storage.names(judged_folder(run)):
        if (match := _FILE.fullmatch(name)) and int(match[1]) > after:
            storage.delete(storage.join(judged_folder(run), name))


def steps_judged(run: str) -> list[int]:
    """Those of which anything was said, whatever was to be judged then."""
    found = (_FILE.fullmatch(name) for name in storage.names(judged_folder(run)) if name.endswith(".json"))
    return sorted(int(match[1]) for match in found if match)


def read_judgements(run: str, steps: Sequence[int]) -> list[dict[str, Any]]:
    """Those that were made, in the order of the steps."""
    files = [judgement_file(run, step) for step in steps]
    return [json.loads(storage.read_bytes(file)) for file in files if storage.exists(file)]


def join_judgements(run: str, steps: Sequence[int]) -> None:
    """Put them into metrics.jsonl, each behind what was measured after the same step. Nobody else writes there now."""
    from mixdpo_ray.training.metrics import STEP_METRICS, read_lines, write_lines  # torch

    path = storage.join(run, STEP_METRICS)
    lines = [line for line in read_lines(path) if line.get("kind") != JUDGEMENT]
    done = [(line["step"] + ("kind" not in line), line) for line in lines]  # steps that were taken by then
    judged = [(line["step"] + 0.5, line) for line in read_judgements(run, steps)]
    joined = [line for _, line in sorted([*done, *judged], key=lambda one: one[0])]
    if joined != list(read_lines(path)):
        write_lines(path, joined)
