"""What `ray job submit --working-dir .` takes along from a checkout that has been worked in."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mixdpo_ray.cluster.upload import measure_upload

ROOT = Path(__file__).parents[2]
STAYS_HERE = (
    ".git/config",
    ".venv/bin/python",
    ".venv-ci/bin/python",
    "venv311/bin/python",
    "mixdpo_ray/__pycache__/errors.cpython-311.pyc",
    "mixdpo_ray.egg-info/PKG-INFO",
    ".mypy_cache/a",
    ".pytest_cache/a",
    ".ruff_cache/a",
    ".hypothesis/a",
    "build/lib/a.py",
    ".gpu-bundle/ray.tar.xz",
    "outputs/runs/first/metrics.jsonl",
    "elsewhere/prepared/0123/train/part-0.parquet",
    "elsewhere/reference/0123/part-0.parquet",
    "elsewhere/runs/first/checkpoints/step-3/shard.pt",
    "elsewhere/studies/search/optuna.journal",
    "tests/recipe/test_recipe.py",
)
GOES = (
    "mixdpo_ray/preparation/prepare.py",
    "mixdpo_ray/runs/train.py",
    "mixdpo_ray/scoring/reference.py",
    "mixdpo_ray/search/report/report.html.j2",
    "mixdpo_ray/search/study.py",
    "jobs/train.py",
    "jobs/recipes/playground.yaml",
    "pyproject.toml",
    "my-model/model.safetensors",
    "pairs/train.jsonl",
)


@pytest.mark.parametrize("gitignore", [True, False])
def test_outputs_caches_and_environments_stay_and_code_goes(
    gitignore: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray reads .gitignore as well, unless it is told not to."""
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0" if gitignore else "1")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, tmp_path)
    for name in (*STAYS_HERE, *GOES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    taken = {name for name, _ in measure_upload(tmp_path, largest=1000).largest}
    assert taken == {*GOES, ".gitignore", ".rayignore"}


def test_what_is_uploaded_of_the_checkout_itself_is_its_source_in_small_files() -> None:
    """All of the package, and nothing that git does not list: tables, models and environments stay here."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    known = set(listed.stdout.splitlines())
    upload = measure_upload(ROOT, largest=10_000)
    uploaded = dict(upload.largest)
    assert {name for name in known if name.startswith("mixdpo_ray/")} <= set(uploaded) <= known
    assert max(uploaded.values()) < 60_000
    assert upload.bytes == sum(uploaded.values())
