"""The same verbs on a disk and in an object store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mixdpo_ray import storage
from mixdpo_ray.errors import StorageError


@pytest.fixture(params=["disk", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "disk":
        return f"{tmp_path}/place"
    return storage.join(request.getfixturevalue("bucket"), request.node.originalname)


def test_what_is_written_is_read_again_and_listed(place: str) -> None:
    path = storage.join(place, "deep", "file.txt")
    assert not storage.exists(path)
    assert storage.names(place) == []
    storage.write_bytes(path, b"first")
    storage.write_bytes(path, b"second")
    assert storage.read_bytes(path) == b"second"
    assert storage.names(place) == ["deep"]
    assert storage.names(storage.join(place, "deep")) == ["file.txt"]
    assert storage.digest(path) == (6, hashlib.sha256(b"second").hexdigest())


def test_a_folder_is_copied_there_and_back(place: str, tmp_path: Path) -> None:
    """As a checkpoint is, to where DeepSpeed can read it: the folder that it is copied to does not exist yet."""
    (tmp_path / "from" / "inner").mkdir(parents=True)
    (tmp_path / "from" / "shard").write_bytes(b"1")
    (tmp_path / "from" / "inner" / "shard").write_bytes(b"2")
    storage.copy(f"{tmp_path}/from", storage.join(place, "checkpoint"))
    storage.copy(storage.join(place, "checkpoint"), f"{tmp_path}/back")
    assert (tmp_path / "back" / "shard").read_bytes() == b"1"
    assert (tmp_path / "back" / "inner" / "shard").read_bytes() == b"2"


def test_a_file_is_copied_and_moved(place: str, tmp_path: Path) -> None:
    storage.write_bytes(storage.join(place, "old"), b"content")
    storage.move(storage.join(place, "old"), storage.join(place, "new"))
    storage.copy(storage.join(place, "new"), f"{tmp_path}/copy")
    assert storage.names(place) == ["new"]
    assert (tmp_path / "copy").read_bytes() == b"content"


def test_a_folder_is_deleted_whole_and_nothing_is_no_error(place: str) -> None:
    for name in ("a/b/c", "a/d"):
        storage.write_bytes(storage.join(place, name), b"")
    storage.delete(storage.join(place, "a"))
    assert not storage.exists(storage.join(place, "a"))
    storage.delete(storage.join(place, "a"))


def test_what_cannot_be_read_is_one_line_with_the_path(place: str) -> None:
    path = storage.join(place, "absent")
    with pytest.raises(StorageError, match=path):
        storage.read_bytes(path)


@pytest.mark.parametrize("uri", ["s3://bucket/a[b]", "floppy://disk/folder"])
def test_a_uri_that_means_nothing_is_one_line(uri: str) -> None:
    with pytest.raises(StorageError, match="give a folder or a URI such as"):
        storage.exists(uri)


@pytest.mark.parametrize(
    ("name", "possible"),
    [
        ("gpt2", True),
        ("meta-llama/Llama-3.1-8B", True),
        ("folder", True),
        ("./folder", False),
        ("../folder", False),
        ("/folder", False),
        ("~/folder", False),
        ("a/b/c", False),
        ("s3://bucket", False),
    ],
)
def test_a_name_of_the_hub_is_one_or_two_words(name: str, possible: bool) -> None:
    assert storage.may_be_on_hub(name) == possible
