"""One driver at a time writes a table, nothing half-written takes its name, and no CPU is waited for in silence."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from mixdpo_ray.cluster.folder_lock import FolderLock, atomic_folder, exclusive, prepared_folder
from mixdpo_ray.cluster.free_cpus import wait_for_a_cpu
from mixdpo_ray.errors import ResourceError, RunConflictError, StorageError


def test_the_folder_is_absolute_and_named_by_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepared_folder("outputs", "abc") == f"{tmp_path}/outputs/prepared/abc"
    assert prepared_folder("s3://bucket/outputs/", "abc") == "s3://bucket/outputs/prepared/abc"


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    with atomic_folder(str(folder)) as place:
        (Path(place) / "part").write_text("new")
        assert not folder.exists()
    assert (folder / "part").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_what_fails_leaves_nothing_and_what_was_killed_is_swept(tmp_path: Path) -> None:
    folder = tmp_path / "table"
    (tmp_path / ".unfinished-table").mkdir()
    (tmp_path / ".unfinished-table" / "old").touch()

    def fail() -> None:
        with atomic_folder(str(folder)) as place:
            assert not list(Path(place).iterdir())
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_second_driver_waits_for_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, order = str(tmp_path / "table"), []

    def second() -> None:
        with exclusive(folder):
            order.append("second")

    with exclusive(folder):
        thread = threading.Thread(target=second)
        thread.start()
        while "waiting" not in capsys.readouterr().err:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_lock_is_a_file_beside_the_folder(tmp_path: Path) -> None:
    """Under the names of earlier versions, whose drivers are to be kept out too."""
    assert FolderLock(f"{tmp_path}/prepared/abc").path == tmp_path / "prepared" / ".abc.lock"
    assert FolderLock(f"{tmp_path}/runs/mine", ".driver.lock").path == tmp_path / "runs" / ".mine.driver.lock"


def test_each_way_of_taking_a_lock_keeps_out_the_others(tmp_path: Path) -> None:
    lock = FolderLock(str(tmp_path / "table"))
    refused = pytest.raises(RunConflictError, match=rf"table is in use by process {os.getpid()} on .*: wait for it")
    for hold in (lock.or_wait, lambda: lock.or_refuse("wait for it")):
        with hold():
            with lock.if_free() as free:
                assert not free
            with refused, lock.or_refuse("wait for it"):
                pass
    with lock.if_free() as free:
        assert free
        with refused, lock.or_refuse("wait for it"):
            pass
    with FolderLock(str(tmp_path / "another")).or_refuse("wait for it"), lock.or_refuse("wait for it"):
        pass


def test_a_holder_of_an_earlier_version_has_no_name(tmp_path: Path) -> None:
    lock = FolderLock(str(tmp_path / "table"))
    with lock.or_wait():
        lock.path.write_text("")
        with pytest.raises(RunConflictError, match="in use by another process: wait"), lock.or_refuse("wait"):
            pass


def test_object_stores_have_no_locks() -> None:
    lock = FolderLock("s3://bucket/table")
    with lock.or_refuse("wait for it"), lock.or_wait(), lock.if_free() as free:
        assert free


def test_a_lock_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    explained = pytest.raises(StorageError, match=r"\.table\.lock: .*check that the path exists")
    with explained, exclusive(f"{tmp_path}/file/table"):
        pass


def test_locks_of_the_system_are_used_in_one_module() -> None:
    package = Path(__file__).parents[2] / "mixdpo_ray"
    uses = re.compile(r"^\s*(import|from) (fcntl|filelock)\b", re.MULTILINE)
    found = [str(path.relative_to(package)) for path in package.rglob("*.py") if uses.search(path.read_text("utf-8"))]
    assert found == ["cluster/folder_lock.py"]


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_without_a_free_cpu_the_numbers_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    everything = ray.cluster_resources()["CPU"]

    class Greedy:
        def there(self) -> bool:
            return True

    wait_for_a_cpu(10)
    greedy: Any = ray.remote(num_cpus=everything)(Greedy).remote()
    assert ray.get(greedy.there.remote())
    while ray.available_resources().get("CPU", 0):  # Ray tells it a little later
        time.sleep(0.02)
    with pytest.raises(ResourceError, match=f"free 0 of {everything:g}, need 1"):
        wait_for_a_cpu(0.5)
    assert "waiting for a CPU" in capsys.readouterr().err
    ray.kill(greedy)
    wait_for_a_cpu(30)
