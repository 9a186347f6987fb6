"""An upload is counted as the files of the package which Ray itself would make."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
from ray._private import ray_constants
from ray._private.runtime_env.packaging import create_package

from mixdpo_ray.cluster.ray_internals import UPLOAD_LIMIT
from mixdpo_ray.cluster.upload import measure_upload

MIB = 1 << 20


def checkout(folder: Path) -> Path:
    files = {
        "jobs/train.py": b"print()",
        "mixdpo_ray/größe.py": b"x" * 5_000,
        "notes.txt": b"n" * 300,
        ".gitignore": b"/outputs/\n*.log\n",
        ".rayignore": b"models/\n",
        "outputs/runs/a/model.safetensors": b"w" * 70_000,
        "models/base/model.safetensors": b"w" * 90_000,
        "job.log": b"l" * 400,
        "tests/.gitignore": b"*.tmp\n",
        "tests/scratch.tmp": b"t" * 600,
        ".git/objects/pack": b"g" * 80_000,
        ".venv/lib/torch.so": b"t" * 80_000,
        "mixdpo_ray/__pycache__/a.pyc": b"c" * 900,
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize("ignores_gitignore", ["0", "1"])
def test_files_and_bytes_are_those_of_a_package_made_by_ray(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignores_gitignore: str
) -> None:
    monkeypatch.setenv(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, ignores_gitignore)
    folder, package = checkout(tmp_path / "checkout"), tmp_path / "package.zip"
    create_package(
        str(folder),
        package,
        include_gitignore=ignores_gitignore == "0",
        excludes=ray_constants.get_runtime_env_default_excludes(),
    )
    upload = measure_upload(folder)
    with ZipFile(package) as made:
        sizes = {file.filename: file.file_size for file in made.infolist() if not file.is_dir()}
    assert dict(measure_upload(folder, largest=100).largest) == sizes
    assert (upload.files, upload.bytes) == (len(sizes), sum(sizes.values()))
    assert upload.bytes < package.stat().st_size < upload.bytes + 1_000 * upload.files


def test_the_largest_files_are_named_first(tmp_path: Path) -> None:
    upload = measure_upload(checkout(tmp_path))
    assert upload.largest == (("mixdpo_ray/größe.py", 5_000), ("notes.txt", 300), (".gitignore", 16))


def test_what_rayignore_names_is_left_out(tmp_path: Path) -> None:
    before = measure_upload(checkout(tmp_path))
    (tmp_path / ".rayignore").unlink()
    after = measure_upload(tmp_path)
    assert (after.files, after.largest[0]) == (before.files, ("models/base/model.safetensors", 90_000))


def test_the_limit_is_that_of_the_jobs_api() -> None:
    assert UPLOAD_LIMIT == 100 * MIB
