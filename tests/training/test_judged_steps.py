"""Which checkpoints a judge looks at, which must stay for it, and where in metrics.jsonl its word stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixdpo_ray.training.judged_steps import (
    answers_file,
    forget_judgements,
    join_judgements,
    judgement_file,
    read_judge,
    read_judgements,
    steps_judged,
    steps_to_judge,
    waits_for_judge,
    write_judge,
    write_judgement,
)
from mixdpo_ray.training.metrics import MetricsLog, read_lines, write_lines
from mixdpo_ray.training.settings import CheckpointJudgeSettings

EVERY_SECOND = CheckpointJudgeSettings(every_steps=2)
LINES: list[dict[str, Any]] = [
    {"kind": "eval", "step": 0},
    {"step": 0, "loss": 1.0},
    {"step": 1, "loss": 0.9},
    {"kind": "eval", "step": 2},
    {"step": 2, "loss": 0.8},
]


def test_every_nth_step_and_the_last_one_are_judged() -> None:
    assert steps_to_judge(EVERY_SECOND, 5) == [2, 4, 5]
    assert steps_to_judge(EVERY_SECOND, 4) == [2, 4]
    assert steps_to_judge(EVERY_SECOND, 1) == [1]
    assert steps_to_judge(None, 5) == []


def test_a_checkpoint_stays_until_it_has_answered(tmp_path: Path) -> None:
    waits = waits_for_judge(str(tmp_path), EVERY_SECOND)
    assert [step for step in range(1, 6) if waits(step)] == [2, 4]
    Path(answers_file(str(tmp_path), 2)).parent.mkdir()
    Path(answers_file(str(tmp_path), 2)).touch()
    assert [step for step in range(1, 6) if waits(step)] == [4]
    assert not waits_for_judge(str(tmp_path), None)(2)


def test_judgements_stand_behind_what_was_measured_after_the_same_step(tmp_path: Path) -> None:
    run = str(tmp_path)
    write_lines(str(tmp_path / "metrics.jsonl"), LINES)
    for step in (2, 3):
        write_judgement(run, step, {"judge/win_rate": step / 10})
    join_judgements(run, steps_judged(run))
    joined = list(read_lines(str(tmp_path / "metrics.jsonl")))
    judged = [{"kind": "judge", "step": step, "judge/win_rate": step / 10} for step in (2, 3)]
    assert joined == [*LINES[:4], judged[0], LINES[4], judged[1]]
    join_judgements(run, [2, 3])
    assert list(read_lines(str(tmp_path / "metrics.jsonl"))) == joined


def test_a_run_that_continues_keeps_what_was_said_up_to_its_checkpoint(tmp_path: Path) -> None:
    run = str(tmp_path)
    for step in (2, 4):
        write_judgement(run, step, {"judge/win_rate": 0.5})
        Path(answers_file(run, step)).touch()
    write_lines(str(tmp_path / "metrics.jsonl"), LINES)
    join_judgements(run, [2, 4])
    forget_judgements(run, 3)
    assert [line["step"] for line in read_judgements(run, [2, 4])] == [2]
    assert not Path(judgement_file(run, 4)).exists()
    assert not Path(answers_file(run, 4)).exists()
    MetricsLog(run, 3)
    kept = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in kept if line.get("kind") == "judge"] == [2]


def test_whose_word_it_is_counts_from_the_first_word_on(tmp_path: Path) -> None:
    run = str(tmp_path)
    write_judge(run, {"model": "one"})
    assert read_judge(run) is None
    write_judge(run, {"model": "another"})
    write_judgement(run, 2, {"judge/win_rate": 0.5})
    assert read_judge(run) == {"model": "another"}
    forget_judgements(run, 0)
    assert read_judge(run) is None
