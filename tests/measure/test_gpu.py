"""The measurement for a GPU runs on a CPU from end to end, so that it does not rot until there is one."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.measure.against_trl import LARGER_ROWS, OURS
from tests.measure.gpu import BEST, PLAIN, all_phases
from tests.measure.micro_steps import MICRO_STEPS

ROOT = Path(__file__).parents[2]
NAMES = [phase.name for phase in all_phases()]
TRAININGS = ("zero 1", PLAIN, "zero 3", "checkpointing", "lora", "packing", BEST, OURS, LARGER_ROWS)
TIMED = 2 * len(MICRO_STEPS) + len(TRAININGS) + 1  # two sizes of each arm, and the larger model


def run_tiny(out: Path, names: list[str]) -> str:
    """What stood on the screen. A launcher has left its mark in the shell, at which TRL would wait for others."""
    command = [sys.executable, "-m", "tests.measure.gpu", "--device", "cpu", "--tiny", "--out", str(out)]
    ran = subprocess.run([*command, "--phases", ",".join(names)], cwd=ROOT, env={**os.environ, "LOCAL_RANK": "0"},
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


def results_in(out: Path) -> dict[str, list[dict[str, Any]]]:
    """By phase, the way it ended last."""
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return {name: [line for line in lines if line["phase"] == name] for name in {line["phase"] for line in lines}}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measure")
    (folder / "screen.txt").write_text(run_tiny(folder, [name for name in NAMES if name != "ray"]))
    return folder


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, list[dict[str, Any]]]:
    return results_in(out)


def test_every_phase_succeeds_and_leaves_rows(out: Path, results: dict[str, list[dict[str, Any]]]) -> None:
    ends = {name: rows[-1]["outcome"] for name, rows in results.items()}
    assert ends == {name: "done" for name in NAMES if name != "ray"}, (out / "log.txt").read_text()[-3000:]
    assert all(len(rows) > 1 for rows in results.values())


def test_the_device_computes_what_the_cpu_computes(results: dict[str, list[dict[str, Any]]]) -> None:
    exact, packed, *rounded = results["correctness"][:4]
    assert exact["errors"] == {"logps": 0, "gradient": 0}  # it is the CPU
    assert packed["errors"]["gradient"] < 1e-6
    assert all(0 < each["errors"]["gradient"] < 1e-2 and each["ln2_gap"] < 1e-3 for each in rounded)


def test_what_was_timed_is_plausible(results: dict[str, list[dict[str, Any]]]) -> None:
    rows = [row for of_phase in results.values() for row in of_phase if "us_per_token" in row]
    assert len(rows) == TIMED + 2  # and TRL's two
    assert all(0 < row["mfu_of_measured"] < 1 and 0 < row["us_per_token"] < 1e6 for row in rows)
    foreseen = [row["estimate_gib"] for row in rows if "estimate_gib" in row]
    assert all(0.001 < gib < 0.1 for gib in foreseen)  # 100,000 weights with their states, and 300 places
    assert not any("mfu" in row or row.get("peak_gib") for row in rows)


def test_the_runs_train_the_same(results: dict[str, list[dict[str, Any]]]) -> None:
    losses = {name: results[name][0]["losses"] for name in TRAININGS}
    assert all(first == pytest.approx(math.log(2), abs=1e-3) for first, *_ in losses.values())
    for name in ("zero 1", "zero 3", "checkpointing", "packing", BEST):
        assert losses[name] == pytest.approx(losses[PLAIN], abs=5e-3)
    assert all(0 < results[name][0]["outside"] < 1 for name in TRAININGS)


def test_a_killed_run_ends_with_the_same_bits_both_ways(results: dict[str, list[dict[str, Any]]]) -> None:
    plain, deterministic, _ = results["resume"]
    assert plain["equal"]
    assert deterministic["equal"]


def test_losses_are_compared_with_trls_before_there_is_a_ratio(results: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("TRL", "TRL precomputed"):
        row = results[name][0]
        assert row["loss_gap"] < 2e-2
        ours = {name: results[name][0]["us_per_token"] for name in (OURS, LARGER_ROWS)}
        assert row["ratios"] == pytest.approx({name: row["us_per_token"] / time for name, time in ours.items()})


def test_the_table_comes_last_and_says_what_only_a_gpu_can_tell(out: Path) -> None:
    screen, table = (out / "screen.txt").read_text(), (out / "table.txt").read_text()
    assert screen.endswith(table)
    assert all(name in table for name in NAMES if name != "ray")
    assert table.count("GPU only") == 2 * (TIMED + 2)  # of every row with a time: MFU and peak
    assert torch.__version__.split("+")[0] in table
    profile = (out / "profile-padded.txt").read_text()
    assert "aten::" in profile


@pytest.mark.cluster
def test_the_same_job_through_ray_has_the_same_losses(tmp_path: Path) -> None:
    run_tiny(tmp_path, ["inputs", BEST, "ray"])
    ran, end = results_in(tmp_path)["ray"]
    assert end["outcome"] == "done", (tmp_path / "log.txt").read_text()[-3000:]
    assert ran["loss_gap"] == 0
