"""Phases of a measurement, each in a process of its own that is ended at its deadline.

A phase that overruns, crashes or runs out of memory takes nothing with it: what it reported stays, and the next one
begins. While one runs, the next one's process imports what it needs. Results are JSON lines, written as they come.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.measure.processes import end, start
from tests.measure.sizes import Sizes

Result = dict[str, Any]  # the phase's name, and numbers by name; "outcome" where a phase ended
Report = Callable[..., None]
RESULTS, LOG = "results.jsonl", "log.txt"
DONE, WRONG = "done", "wrong"


@dataclass(frozen=True)
class Measurement:
    """What every phase is given."""

    device: str  # "cpu" or "cuda:0"
    sizes: Sizes
    work: Path  # models and tables, which do not stay
    out: Path
    earlier: tuple[Result, ...] = ()

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    def last(self, phase: str, name: str) -> Any:
        """What an earlier phase reported under a name; None where it did not."""
        found = [result[name] for result in self.earlier if result["phase"] == phase and name in result]
        return found[-1] if found else None


@dataclass(frozen=True)
class Phase:
    """A function that reports rows of numbers, and how long it may take."""

    name: str
    run: Callable[[Measurement, Report], None]
    seconds: float
    needs: tuple[str, ...] = ()  # phases without which it makes no sense
    imports: tuple[str, ...] = ()  # what takes seconds to import, while the phase before it runs
    decides: bool = False  # whether what follows means nothing where it finds something wrong


def run_phases(phases: Sequence[Phase], measurement: Measurement, seconds: float) -> list[Result]:
    """Every result."""
    began, results = time.monotonic(), _Results(measurement.out / RESULTS)
    waiting: dict[str, _Running] = {}
    ended: dict[str, str] = {}
    decisive = {phase.name for phase in phases if phase.decides}
    try:
        for number, phase in enumerate(phases):
            left = seconds - (time.monotonic() - began)
            if why := _reason_against(phase, ended, decisive, left):
                ended[phase.name] = "not run"
                results.add({"phase": phase.name, "outcome": "not run", "why": why})
                continue
            running = waiting.pop(phase.name, None) or _Running(phase, measurement)
            for following in phases[number + 1 : number + 2]:
                waiting[following.name] = _Running(following, measurement)
            for result in running.follow(tuple(results.rows), min(phase.seconds, left)):
                results.add(result)
            ended[phase.name] = results.rows[-1]["outcome"]
    finally:
        for running in waiting.values():
            end(running.process)
    return results.rows


def _reason_against(phase: Phase, ended: dict[str, str], decisive: set[str], left: float) -> str | None:
    if wrong := [name for name, outcome in ended.items() if outcome == WRONG and name in decisive]:
        return f"{wrong[0]} found something wrong"
    if missing := [name for name in phase.needs if ended.get(name) != DONE]:
        return f"{missing[0]} did not succeed"
    return "the time is used up" if left <= 0 else None


class _Results:
    """Also in a file, line by line, so that whatever happens later takes nothing away."""

    def __init__(self, path: Path):
        self.path, self.rows = path, list[Result]()
        path.write_text("")

    def add(self, result: Result) -> None:
        self.rows.append(result)
        with self.path.open("a") as file:
            file.write(json.dumps(result) + "\n")


class _Running:
    """A phase's process: it imports, waits for its turn, and sends what it finds."""

    def __init__(self, phase: Phase, measurement: Measurement):
        self.phase = phase
        self.pipe, theirs = Pipe()
        self.process: BaseProcess = start(measurement.device, _serve, phase, measurement, theirs)
        theirs.close()

    def follow(self, earlier: tuple[Result, ...], seconds: float) -> Iterator[Result]:
        """What it reports, and at the end how it ended."""
        began = time.monotonic()
        outcome: Result = {}
        try:
            if self.process.is_alive():
                self.pipe.send(earlier)
            for kind, content in self._received(began + seconds):
                if kind == "result":
                    yield {"phase": self.phase.name, **content}
                else:
                    outcome = content
            overran = not outcome and time.monotonic() >= began + seconds
        finally:  # also of Ctrl-C
            end(self.process)
        if overran:
            outcome = {"outcome": "killed", "why": f"not done after {seconds:.0f} s"}
        elif not outcome:
            outcome = _failed(f"its process ended with status {self.process.exitcode}, see {LOG}")
        yield {"phase": self.phase.name, "seconds": round(time.monotonic() - began, 1), **outcome}

    def _received(self, until: float) -> Iterator[tuple[str, Result]]:
        """Messages, as long as there is time and somebody who could send them."""
        while (left := until - time.monotonic()) > 0 and wait([self.pipe, self.process.sentinel], left):
            if not self.pipe.poll():
                return  # it has ended, and everything that it sent is here
            try:
                yield self.pipe.recv()
            except EOFError:
                return


def _failed(why: str) -> Result:
    return {"outcome": "failed", "why": why}


def _serve(phase: Phase, measurement: Measurement, pipe: Connection) -> None:
    """In the phase's process, whose words go to the log: libraries have many."""
    log = (measurement.out / LOG).open("a", buffering=1)
    sys.stdout = sys.stderr = log
    for standard in (1, 2):  # of what is not Python, and of processes that are started
        os.dup2(log.fileno(), standard)
    for name in phase.imports:
        importlib.import_module(name)
    measurement = replace(measurement, earlier=pipe.recv())
    print(f"---- {phase.name}", flush=True)
    wrong: list[str] = []

    def report(**numbers: Any) -> None:
        pipe.send(("result", numbers))
        wrong.extend(numbers.get("wrong", ()))

    try:
        phase.run(measurement, report)
    except Exception as error:  # noqa: BLE001 the measurement goes on, and the table tells
        traceback.print_exc()
        first_line = str(error).strip().split("\n")[0]
        pipe.send(("end", _failed(f"{type(error).__name__}: {first_line}")))
    else:
        pipe.send(("end", {"outcome": WRONG, "why": "; ".join(wrong)} if wrong else {"outcome": DONE}))
