"""The metrics file through kills and resumes, and means from sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdpo_ray.training.metrics import SUMS, MetricsLog, step_metrics
from mixdpo_ray.training.window_shares import WindowTotals


def steps_in(run: Path) -> list[tuple[str | None, int]]:
    return [
        (line.get("kind"), line["step"]) for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    ]


def write(run: Path) -> None:
    """Evaluated at 0 and 2, killed while the line of step 3 was written."""
    log = MetricsLog(str(run), 0)
    for line in ({"kind": "eval", "step": 0, "eval_loss": 0.5}, {"step": 0}, {"step": 1}, {"kind": "eval", "step": 2}):
        log.append(line)
    log.append({"step": 2})
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')


def test_continuing_cuts_the_steps_that_are_done_again(tmp_path: Path) -> None:
    """From a checkpoint after two steps: the evaluation there stays, the third step's line goes, and half a line."""
    write(tmp_path)
    log = MetricsLog(str(tmp_path), 2)
    log.append({"step": 2})
    assert steps_in(tmp_path) == [("eval", 0), (None, 0), (None, 1), ("eval", 2), (None, 2)]
    assert log.first_evaluation == {"kind": "eval", "step": 0, "eval_loss": 0.5}


def test_starting_over_leaves_no_old_line(tmp_path: Path) -> None:
    write(tmp_path)
    MetricsLog(str(tmp_path), 0)
    assert steps_in(tmp_path) == []


def test_a_value_that_is_not_finite_never_reaches_the_file(tmp_path: Path) -> None:
    log = MetricsLog(str(tmp_path), 0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.append({"step": 0, "loss": float("nan")})
    assert steps_in(tmp_path) == []


def test_means_are_sums_over_the_pairs_they_are_of() -> None:
    """Four easy and two hard pairs: chosen log-probs over all six, what needs a rejected answer over four."""
    totals = WindowTotals(6, 4, 2, 10, 1, (1,), 100, 0, 120)
    sums = dict.fromkeys(SUMS, 12.0) | {"loss": 0.5, "rewards/chosen": 8.0, "rewards/rejected": 2.0, "loss/sft": 3.0}
    metrics = step_metrics(sums, totals, has_reference=True)
    assert metrics["loss"] == 0.5
    assert metrics["logps/chosen"] == 2.0
    assert metrics["logps/rejected"] == metrics["loss/easy"] == metrics["logps/chosen_drift"] == 3.0
    assert metrics["rewards/margins"] == 1.5
    assert metrics["loss/hard"] == 3.0
    assert "logps/chosen_drift" not in step_metrics(sums, totals, has_reference=False)
