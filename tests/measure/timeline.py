"""A command watched from outside: when it said what, when it trained its steps, which process used how much CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

EVERY_SECONDS = 0.1
FIRST_STEP, LAST_STEP, END = "first step", "last step", "end"


@dataclass(frozen=True)
class Timeline:
    events: list[tuple[float, str]]  # seconds from the start, what was seen
    processes: list[tuple[str, float]]  # name, CPU seconds; each process once, in the order of their starts

    def at(self, event: str) -> float:
        return next(seconds for seconds, text in self.events if text == event)

    @property
    def cpu_seconds(self) -> float:
        return sum(seconds for _, seconds in self.processes)

    def describe(self) -> str:
        events = [f"{seconds:7.1f} s  {text}" for seconds, text in self.events]
        alike: dict[str, list[float]] = defaultdict(list)
        for name, seconds in self.processes:
            alike[name].append(seconds)
        processes = [
            f"{sum(each):7.1f} CPU s  {name}{f' ({len(each)} of them)' if len(each) > 1 else ''}"
            for name, each in sorted(alike.items(), key=lambda item: -sum(item[1]))
            if sum(each) >= 0.1
        ]
        return "\n".join([*events, *processes, f"{self.cpu_seconds:7.1f} CPU s  in all"])


def timeline(command: Sequence[str], folder: Path, metrics: Path | None = None, steps: int = 0) -> Timeline:
    """Run the command to its end. `metrics`: the run's metrics.jsonl, whose lines are its steps."""
    if metrics is not None:
        metrics.unlink(missing_ok=True)
    began, events = time.monotonic(), list[tuple[float, str]]()
    process = subprocess.Popen(command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    listener = threading.Thread(target=_listen, args=(process, began, events))
    listener.start()
    used: dict[tuple[int, float], tuple[str, float]] = {}
    trained = 0
    while process.poll() is None:
        _look(process.pid, used)
        now = _steps_in(metrics)
        if now and not trained:
            events.append((time.monotonic() - began, FIRST_STEP))
        if now == steps and now > trained:
            events.append((time.monotonic() - began, LAST_STEP))
        trained = now
        time.sleep(EVERY_SECONDS)
    events.append((time.monotonic() - began, END))
    listener.join()  # until the last process that Ray started has let go of the output
    if process.returncode:
        sys.exit("\n".join([f"exit status {process.returncode}: {' '.join(command)}", *(text for _, text in events)]))
    return Timeline(sorted(events), list(used.values()))


def _listen(process: subprocess.Popen[str], began: float, events: list[tuple[float, str]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        text = re.sub(r"^(\x1b\[\d+m)?\([^)]*\)(\x1b\[0m)? ", "", line.rstrip())  # of a Ray worker
        if text and text not in [said for _, said in events]:  # Ray repeats itself
            events.append((time.monotonic() - began, text))


def _look(root: int, used: dict[tuple[int, float], tuple[str, float]]) -> None:
    """CPU seconds so far of the process and its descendants; those that have ended keep their last value."""
    try:
        family = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            times = member.cpu_times()
            key = (member.pid, member.create_time())
            used[key] = (_name(member), times.user + times.system)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def _name(process: psutil.Process) -> str:
    line = process.cmdline()
    if not line:
        return process.name()
    if line[0].startswith("ray::"):
        return line[0].split()[0]
    words = [word for word in line if not word.startswith("-")]
    return " ".join(Path(word).name for word in words[:2])[:60]


def _steps_in(metrics: Path | None) -> int:
    if metrics is None or not metrics.exists():
        return 0
    lines = metrics.read_text().splitlines()
    return sum('"kind": "eval"' not in line and line.startswith("{") and _whole(line) for line in lines)


def _whole(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:  # it is being written
        return False
    return True
