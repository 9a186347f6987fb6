"""What a person watches of a search, on a terminal and in a job's log."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mixdpo_ray.cluster.events import PhaseBegan, StepTaken, Warned
from mixdpo_ray.recipe.measure import read_metrics
from mixdpo_ray.search.display import StudyDisplay, shown_setting
from mixdpo_ray.search.trials import TrialRow, rows
from tests.search.driven_study import ACCURACY, DrivenStudy
from tests.search.recipes import make_recipe

BETA, VALUE = "objective.beta", "curriculum.threshold.value"
SPACE = {VALUE: {"choice": [0.5, 1.5]}, BETA: {"loguniform": [0.005, 0.5]}}


def display_of(
    wanted: int = 4, width: int = 120, height: int = 30, terminal: bool = True, before: Sequence[TrialRow] = ()
) -> StudyDisplay:
    display = StudyDisplay("small", read_metrics("accuracy"), (1, 3, 9), 2, wanted, list(before))
    display.console = Console(file=io.StringIO(), width=width, height=height, force_terminal=terminal)
    return display


def watched(folder: Path, display: StudyDisplay) -> DrivenStudy:
    """A study that tells a display, as a search does."""
    study = DrivenStudy(make_recipe({"space": SPACE}), folder)
    study.search.tell = display.show
    return study


def seen(display: StudyDisplay) -> list[str]:
    """The lines on the screen, without colours."""
    assert isinstance(display.console.file, io.StringIO)
    display.console.file.truncate(display.console.file.seek(0))
    display.console.print(display.table())
    return [line.rstrip() for line in re.sub(r"\x1b\[[\d;]*m", "", display.console.file.getvalue()).splitlines()]


def test_before_the_first_trial_there_is_a_head_alone() -> None:
    assert display_of().head() == "small: 0 of 4 trials ended"
    assert len(seen(display_of())) == 2


def test_a_running_trial_shows_its_settings_and_what_it_does(tmp_path: Path) -> None:
    display = display_of()
    study = watched(tmp_path, display)
    number, settings = study.start()
    beta = f"{settings[BETA]:.4g}"
    assert re.fullmatch(
        rf" +0 +RUNNING +0/3 +starting +\d:\d\d +value {settings[VALUE]} +beta {beta}", seen(display)[-1]
    )
    display.show(StepTaken({"stage": "easy", "step": 3, "epoch": 0.5}, job=number))
    assert re.search(r"RUNNING +0/3 +easy 25% ", seen(display)[-1])
    study.report(number, 1, {ACCURACY: 0.625})
    display.show(PhaseBegan("evaluating", job=number))
    assert re.search(r"RUNNING +1/3 +evaluating +0\.6250 +\d:\d\d ", seen(display)[-1])


def test_an_ended_trial_shows_its_score_and_how_it_ended(tmp_path: Path) -> None:
    display = display_of()
    study = watched(tmp_path, display)
    study.train(lambda _: 0.75)
    study.train(lambda _: 0.5)
    study.refuse(study.start()[0], "the loss of step 17 is not finite")
    first, second, third = seen(display)[-3:]
    assert re.match(r" +0 +COMPLETE +3/3 +0\.7500 +\d:\d\d ", first)
    assert re.match(r" +1 +PRUNED +1/3 +0\.5000 +\d:\d\d ", second)
    assert re.match(r" +2 +FAIL +0/3 +the loss of step 17 is n… +\d:\d\d ", third)


def test_the_head_counts_names_the_best_and_says_how_long_it_takes(tmp_path: Path) -> None:
    """Two of four trials in 60 seconds: two more take a minute."""
    display = display_of(wanted=4)
    study = watched(tmp_path, display)
    study.train(lambda _: 0.5)
    study.train(lambda _: 0.75)
    display.began -= 60
    assert re.fullmatch(r"small: 2 of 4 trials ended  best 0\.7500 \(trial 1\)  ETA 1:0\d", display.head())
    assert seen(display)[0].startswith("small: 2 of 4 trials ended  best 0.7500 (trial 1)  ETA 1:0")


def test_at_the_end_nothing_is_left_to_wait_for(tmp_path: Path) -> None:
    display = display_of(wanted=1)
    watched(tmp_path, display).train(lambda _: 0.5)
    assert display.head() == "small: 1 of 1 trials ended  best 0.5000 (trial 0)"


def test_failures_are_counted_and_never_the_best(tmp_path: Path) -> None:
    display = display_of()
    study = watched(tmp_path, display)
    study.crash(study.start()[0])
    assert display.head().startswith("small: 1 of 4 trials ended  ETA ")


def test_a_study_that_goes_on_remembers_its_best_and_counts_what_had_ended(tmp_path: Path) -> None:
    before = display_of()
    watched(tmp_path, before).train(lambda _: 0.875)
    display = display_of(wanted=2, before=before.ended)
    watched(tmp_path, display).train(lambda _: 0.5)
    assert "2 of 3 trials ended  best 0.8750 (trial 0)" in display.head()


def test_a_trial_that_was_interrupted_has_not_ended(tmp_path: Path) -> None:
    """One of three is done and another one was cut: two are wanted, and none of them has ended here."""
    study = watched(tmp_path, display_of())
    study.train(lambda _: 0.875)
    study.start()
    assert "1 of 3 trials ended" in display_of(wanted=2, before=rows(study.study)).head()


def test_what_runs_is_always_on_the_screen_and_of_what_has_ended_the_newest(tmp_path: Path) -> None:
    """A screen of 10 lines has room for 6 trials: two that run, and the last four of nine."""
    display = display_of(wanted=20, height=10)
    study = watched(tmp_path, display)
    oldest, _ = study.start()
    for _ in range(9):
        study.train(lambda _: 0.5)
    newest, _ = study.start()
    assert [int(line.split()[0]) for line in seen(display)[2:]] == [oldest, 6, 7, 8, 9, newest]


def test_more_trials_may_run_than_the_screen_has_lines(tmp_path: Path) -> None:
    display = display_of(wanted=20, height=8)
    study = watched(tmp_path, display)
    study.train(lambda _: 0.5)
    for _ in range(7):
        study.start()
    assert [int(line.split()[0]) for line in seen(display)[2:]] == list(range(1, 8))


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_narrow_screen_cuts_settings_and_reasons_and_nothing_else(tmp_path: Path, width: int) -> None:
    display = display_of(width=width)
    study = watched(tmp_path, display)
    study.train(lambda _: 0.75)
    study.refuse(study.start()[0], "the loss of step 17 is not finite")
    _, heads, first, second = seen(display)
    assert heads.split() == ["trial", "state", "rung", "now", "accuracies", "time", "settings"]
    assert first.split()[:4] == ["0", "COMPLETE", "3/3", "0.7500"]
    assert second.split()[:4] == ["1", "FAIL", "0/3", "the"]
    assert [("…" in line, len(line) <= width) for line in (first, second)] == [(width < 80, True), (width < 200, True)]


def test_brackets_in_a_reason_are_no_markup(tmp_path: Path) -> None:
    display = display_of()
    study = watched(tmp_path, display)
    study.refuse(study.start()[0], "shape [2] is not [red]")
    assert "shape [2] is not [red]" in seen(display)[-1]


def test_a_warning_of_a_trials_worker_is_said_above_the_table(tmp_path: Path) -> None:
    display = display_of()
    study = watched(tmp_path, display)
    display.show(Warned("no drift: there is [no] reference", job=study.start()[0]))
    assert isinstance(display.console.file, io.StringIO)
    assert "trial 0: warning: no drift: there is [no] reference" in display.console.file.getvalue()


def test_elsewhere_than_on_a_terminal_there_is_a_line_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("mixdpo_ray.search.display.time.monotonic", lambda: now[0])
    display = display_of(terminal=False)
    number, _ = watched(tmp_path, display).start()
    for second, event in (
        (101, PhaseBegan("loading the model", job=number)),
        (102, PhaseBegan("evaluating", job=number)),
        (112, StepTaken({"stage": "easy", "step": 3, "epoch": 0.5}, job=number)),
    ):
        now[0] = second
        display.show(event)
    display.show(PhaseBegan("waiting for CPU (have 1, need 2)"))
    began, *lines = capsys.readouterr().err.splitlines()
    assert began.startswith("trial 0: started: ")
    assert lines == ["trial 0: loading the model", "trial 0: easy 25%"]
    assert isinstance(display.console.file, io.StringIO)
    assert display.console.file.getvalue() == "small: waiting for CPU (have 1, need 2)\n"


def test_of_equals_the_earlier_trial_is_called_the_best_whichever_ended_first(tmp_path: Path) -> None:
    display = display_of()
    study = watched(tmp_path, display)
    (first, _), (second, _) = study.start(), study.start()
    for number in (second, first):
        for budget in study.budgets:
            study.report(number, budget, {ACCURACY: 0.5})
        study.end(number)
    assert "best 0.5000 (trial 0)" in display.head()


def test_what_a_worker_says_of_an_unknown_trial_is_let_go() -> None:
    display = display_of()
    display.show(StepTaken({"stage": "easy", "step": 3, "epoch": 0.5}, job=7))
    assert len(seen(display)) == 2


def test_a_log_has_a_line_for_each_event(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    display = display_of(terminal=False)
    study = watched(tmp_path, display)
    _, settings = study.train(lambda _: 0.75), study.row(0).settings
    study.refuse(study.start()[0], "it diverged")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"trial 0: started: {shown_setting(settings)}"
    assert lines[1:4] == [f"trial 0: rung {place}/3: 0.7500" for place in (1, 2, 3)]
    assert lines[4].startswith("trial 0: COMPLETE   small: 1 of 4 trials ended  best 0.7500 (trial 0)  ETA 0:")
    assert lines[6].startswith("trial 1: FAIL: it diverged   small: 2 of 4 trials ended  best 0.7500")
    assert len(lines) == 7


def test_a_terminal_gets_no_lines_beside_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watched(tmp_path, display_of()).train(lambda _: 0.75)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"objective.beta": 0.012346, "objective.name": "dpo"}, "beta 0.01235  name dpo"),
        ({"train.optimizer.learning_rate": 1.23456e-7}, "learning_rate 1.235e-07"),
        ({"train.num_train_epochs": 12345, "curriculum.threshold.value": None}, "num_train_epochs 12345  value None"),
        ({}, ""),
    ],
)
def test_settings_are_shown_by_their_short_names(settings: dict[str, Any], expected: str) -> None:
    assert shown_setting(settings) == expected
