"""What a run takes from the machine while it lasts: memory of this process and of all that it started, disk, CPU time.

Memory of all is proportional set size, so that the object store, which every Ray process maps, counts once.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

EVERY_SECONDS = 0.5


class Watch:
    """Peaks so far."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.all_mib = self.own_mib = self.disk_mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)
        self._before = _cpu_seconds()
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._began

    @property
    def cpu_seconds(self) -> float:
        return _cpu_seconds() - self._before

    def look(self) -> None:
        self.all_mib = max(self.all_mib, sum(_proportional_mib(pid) for pid in family()))
        self.own_mib = max(self.own_mib, own_mib())
        self.disk_mib = max(self.disk_mib, folder_mib(self.folder))

    def _keep_looking(self) -> None:
        while not self._ended.wait(EVERY_SECONDS):
            self.look()


def family() -> list[int]:
    """This process and its descendants. Ray's workers descend from the raylet, which descends from who started it."""
    me = psutil.Process()
    return [me.pid, *(child.pid for child in me.children(recursive=True))]


def _proportional_mib(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def own_mib() -> float:
    """Of this process alone, without what it maps of the object store."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssFile:"))) / 1024


def folder_mib(folder: Path) -> float:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).lstat().st_size
            except OSError:  # removed meanwhile
                continue
    return total / 2**20


def _cpu_seconds() -> float:
    """Of the family, with children that have ended. A worker that ended under another parent is missed."""
    total = 0.0
    for pid in family():
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total
