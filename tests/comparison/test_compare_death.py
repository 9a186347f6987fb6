"""A comparison whose driver or workers are killed: the same command continues, and trains no finished arm again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.trainings import ROOT
from tests.search.studies import StudyJob, write_world

ENVIRONMENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # what has lost its Ray ends; by default after a minute
ARMS = {
    "sorted": {"curriculum.mode": "sorted_dpo"},
    "dropped": {"curriculum.mode": "discard_hard"},
    "mixdpo": {},
    "simpo": {"objective.name": "simpo"},
}


def settings() -> tuple[str, ...]:
    content = {"arms": ARMS, "seeds": [0], "at_once": 1, "untrained": "start"}
    return ("recipe.yaml", "output.name=cut", "cluster.num_workers=1", f"compare={json.dumps(content)}")


def summaries(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "out/comparisons/cut").glob("*/seed-0/summary.json")}


def steps(folder: Path, arm: str) -> int:
    files = folder.glob(f"out/comparisons/cut/{arm}-*/*/metrics.jsonl")
    return sum(path.read_text().count('"stage"') for path in files)


@pytest.mark.cluster
def test_a_comparison_that_died_continues_and_repeats_no_finished_arm(local_ray: None, tmp_path: Path) -> None:
    """It is interrupted; then a worker dies, of the one group that trains all arms; then the driver."""
    job = StudyJob(write_world(tmp_path), "cut", environment=ENVIRONMENT)
    job.start_job("compare", *settings())
    job.wait_until(lambda: steps(tmp_path, "sorted") + steps(tmp_path, "simpo") > 0, "step")
    ended = job.interrupt(without_export=True)
    assert (ended.status, ended.lines[-1]) == (130, "interrupted; the same command continues"), ended.err
    assert "Traceback" not in ended.err
    assert (tmp_path / "out/comparisons/cut/results.csv").exists()

    job.start_job("compare", *settings())
    job.wait_until(lambda: len(summaries(tmp_path)) >= 2, "two finished arms")
    job.kill("RayTrainWorker")
    done = summaries(tmp_path)
    job.wait_until(lambda: len(summaries(tmp_path)) > len(done), "arm after the workers were started again")
    job.kill_driver()
    before = summaries(tmp_path)
    assert {path: before[path] for path in done} == done

    ended = job.run_job_here("compare", *settings())
    assert ended.status == 0, ended.err
    after = summaries(tmp_path)
    assert len(after) == len(ARMS)
    assert {path: after[path] for path in before} == before
    assert "cut: 4 of 4 runs ended" in ended.out
    assert "| start " in ended.out
    assert [steps(tmp_path, arm) for arm in ("sorted", "mixdpo", "simpo")] == [16, 16, 16]


def test_a_typo_in_an_arm_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    arms = "{a: {}, b: {objectve.beta: 1}}"
    recipe.write_text(f"model: {{path: m}}\ndata: {{source: {{path: p}}}}\ncompare: {{arms: {arms}}}\n")
    command = [sys.executable, str(ROOT / "jobs" / "compare.py"), str(recipe)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = ["compare.arms.b: objectve is unknown; did you mean objective?"]
    assert (done.returncode, done.stderr.strip().splitlines()) == (2, said)
    assert not (tmp_path / "outputs").exists()
