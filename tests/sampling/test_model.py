"""The folder of a model whose answers are sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray import storage
from mixdpo_ray.errors import StorageError
from mixdpo_ray.sampling.model import copy_settings_last


def test_a_model_whose_copying_breaks_off_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """A folder stands where the weights should go."""
    folder, target = tmp_path / "here", tmp_path / "bucket"
    for name in ("config.json", "model.safetensors"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    (target / "model.safetensors" / "taken").mkdir(parents=True)
    with pytest.raises(StorageError):
        copy_settings_last(str(folder), str(target))
    assert storage.names(str(target)) == ["model.safetensors"]


def test_all_of_a_model_is_copied_to_a_bucket(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "templates").mkdir()
    for name in ("config.json", "model.safetensors", "templates/other.jinja"):
        (tmp_path / name).write_text(name)
    copy_settings_last(str(tmp_path), f"{bucket}/exported/step-5")
    assert storage.names(f"{bucket}/exported/step-5") == ["config.json", "model.safetensors", "templates"]
    assert storage.read_bytes(f"{bucket}/exported/step-5/templates/other.jinja") == b"templates/other.jinja"
