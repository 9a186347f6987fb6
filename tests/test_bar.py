"""How far work has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import pytest
from rich.console import Console

from mixdpo_ray.bar import Bar, Counter, Pace, going_on, say, waiting
from mixdpo_ray.cluster.events import Evaluated, StepTaken
from mixdpo_ray.cluster.progress import TrainingDisplay

ROOT = Path(__file__).parents[1]
PROGRAM = """
from mixdpo_ray.cluster.events import Evaluated, PhaseBegan, StepTaken, Warned
from mixdpo_ray.cluster.progress import TrainingDisplay

with TrainingDisplay("train", 3) as display:
    print("a line of stdout")
    display.show(PhaseBegan("loading the model"))
    display.show(Evaluated({"eval_rewards/accuracies": 0.5}))
    display.show(Warned("checkpoint [step-2] is damaged"))
    for step in range(3):
        measured = {"loss": 0.25, "perf/pairs_per_second": 12.5, "rewards/accuracies": 0.75}
        display.show(StepTaken({"step": step, "stage": "easy", **measured}))
"""


def line_of(bar: Bar, width: int) -> str:
    console = bar.console = Console(file=io.StringIO(), width=width)
    console.print(bar._line())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()


@pytest.mark.parametrize(("width", "drawn"), [(200, 40), (70, 17), (50, 8)])
def test_a_narrow_terminal_takes_from_the_bar_and_then_from_the_end(width: int, drawn: int) -> None:
    bar = Bar("train: easy", "step", 40)
    bar.show("train: easy", 13, 40, "loss 0.6931  held", "ETA 0:02")
    line = line_of(bar, width)
    assert line.startswith("train: easy ")
    assert line.index(" 13/40") - len("train: easy ") == drawn
    assert " 13/40 steps  ETA 0:02  " in line
    assert line.endswith("loss 0.6931  held") == (width > 60)
    assert len(line) <= width


def test_a_terminal_of_80_columns_has_room_for_both_accuracies() -> None:
    display = TrainingDisplay("playground", 120)
    display.show(Evaluated({"eval_rewards/accuracies": 0.51}))
    measured = {"loss": 0.6931, "perf/pairs_per_second": 123.4, "rewards/accuracies": 0.52}
    for step in range(12):
        display.show(StepTaken({"step": step, "stage": "easy", **measured}))
    display.bar.eta = "ETA 0:10"
    assert "12/120 steps  ETA 0:10  accuracy 0.52  held out 0.510" in line_of(display.bar, 80)


def test_a_terminal_gets_a_bar_with_warnings_above_it() -> None:
    shown = seen_on_a_terminal(stdout=None)
    assert "a line of stdout" in shown
    _, _, last = shown.rpartition("warning: checkpoint [step-2] is damaged")
    (end,) = re.findall(r"train: easy ━+ (3/3 steps  ETA 0:00  .*?)\s*\n", last)[-1:]
    assert end.split("  ")[2:] == ["accuracy 0.75", "held out 0.500", "loss 0.2500", "pairs/s 12.5"]


def test_what_goes_to_a_file_is_not_drawn_on_the_terminal(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        assert "a line of stdout" not in seen_on_a_terminal(stdout=out.fileno())
    assert (tmp_path / "out").read_text() == "a line of stdout\n"


def seen_on_a_terminal(stdout: int | None) -> str:
    """All that a program has drawn on a terminal of 150 columns, which is its stderr; without colours."""
    ours, theirs = pty.openpty()
    pieces: list[bytes] = []
    reader = Thread(target=_read_all, args=(ours, pieces))
    reader.start()
    environment = {**os.environ, "COLUMNS": "150", "TERM": "xterm"}
    out = theirs if stdout is None else stdout
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=out, stderr=theirs, check=True)
    os.close(theirs)
    reader.join()
    os.close(ours)
    return re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", b"".join(pieces).decode()).replace("\r", "\n")


def _read_all(terminal: int, pieces: list[bytes]) -> None:
    try:
        while piece := os.read(terminal, 4096):
            pieces.append(piece)
    except OSError:  # how a terminal says that its last writer is gone
        return


def test_elsewhere_counted_work_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("mixdpo_ray.bar.time.monotonic", lambda: now[0])
    with Counter("prepare", "task") as counter:
        for done, second in ((1, 101.0), (2, 111.0), (3, 112.0), (4, 122.0)):
            now[0] = second
            counter.reach(done, 4, "read")
    assert capsys.readouterr().err.splitlines() == ["prepare: read, 2/4 tasks", "prepare: read, 4/4 tasks"]


def test_what_was_done_before_is_no_part_of_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run at step 50 of 100: two seconds a step, so 49 steps are left at the 51st, and take 98 s."""
    now, pace = [1000.0], Pace()
    monkeypatch.setattr("mixdpo_ray.bar.time.monotonic", lambda: now[0])
    pace.reach(50)
    assert pace.eta(100) == ""
    now[0] += 2.0
    pace.reach(51)
    assert pace.eta(100) == "ETA 1:38"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mixdpo_ray.bar.FIRST_SILENCE", 0.05)


def said_again(capsys: pytest.CaptureFixture[str]) -> list[str]:
    time.sleep(0.2)
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("impatient")
def test_what_is_waited_for_is_said_again_until_it_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting("starting Ray"):
        first, *others = said_again(capsys)
    assert first == "starting Ray"
    assert others
    assert set(others) == {"starting Ray: 0 s so far"}
    assert said_again(capsys) == []


@pytest.mark.usefixtures("impatient")
def test_another_word_ends_the_wait(capsys: pytest.CaptureFixture[str]) -> None:
    going_on("starting the workers")
    say("the workers are there")
    assert said_again(capsys) == ["the workers are there"]
    bar = Bar("train", "step", 3)
    bar.show("train", 0, 3, meanwhile="train: loading the model")
    bar.show("train", 1, 3)
    assert said_again(capsys) == []
    bar.show("train", 2, 3, meanwhile="train: evaluating")
    bar.close()
    assert said_again(capsys) == []


class SlowTerminal(io.StringIO):
    """Takes a while for each line, as a connection may."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = Event()

    def write(self, text: str) -> int:
        self.writes.set()
        time.sleep(0.1)
        return super().write(text)


@pytest.mark.usefixtures("impatient")
def test_a_word_that_comes_while_another_is_said_again_ends_that_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = SlowTerminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    going_on("starting the workers")
    assert terminal.writes.wait(10)
    say("the workers are there")
    time.sleep(0.4)
    assert terminal.getvalue().splitlines() == ["starting the workers: 0 s so far", "the workers are there"]


def test_a_bar_tells_for_how_long_nothing_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mixdpo_ray.bar.time.monotonic", lambda: now[0])
    bar = Bar("train", "step", 40)
    bar.show("train: starting the workers", 0, 40)
    assert "so far" not in line_of(bar, 200)
    now[0] += 7
    assert " 0/40 steps  7 s so far" in line_of(bar, 200)
