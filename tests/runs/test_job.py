"""A recipe and its table become a job in a folder that is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.cluster.run_record import run_folder
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.job import make_job
from mixdpo_ray.tables.prepared_table import PreparedTable
from tests.runs.test_clean import prepared_table


def recipe(folder: Path, beta: float = 0.1, *, fresh: bool = False) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"path": "some/model"},
            "data": {"source": {"path": "pairs.jsonl"}},
            "objective": {"name": "dpo", "beta": beta},
            "output": {"storage_path": str(folder), "name": "mine", "fresh": fresh},
        }
    )


def test_a_job_names_its_folders_as_every_worker_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = PreparedTable.open(str(prepared_table(tmp_path, "table", "d1")))
    job = make_job(recipe(Path("out")), table)
    assert (job.run, job.prepared) == (f"{tmp_path}/out/runs/mine", table.folder)
    assert job.fingerprint == make_job(recipe(Path("out")), table).fingerprint


def test_a_fresh_start_deletes_what_was_there(tmp_path: Path) -> None:
    table = PreparedTable.open(str(prepared_table(tmp_path, "table", "d1")))
    make_job(recipe(tmp_path), table)
    left = Path(run_folder(recipe(tmp_path))) / "metrics.jsonl"
    left.write_text("{}\n")
    with pytest.raises(RunConflictError, match=r"objective\.beta was 0\.1, is 0\.3"):
        make_job(recipe(tmp_path, beta=0.3), table)
    assert left.exists()
    make_job(recipe(tmp_path, beta=0.3, fresh=True), table)
    assert not left.exists()
