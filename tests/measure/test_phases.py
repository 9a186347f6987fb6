"""A phase that goes wrong takes no other with it, and operations are counted as they are defined."""

from __future__ import annotations

import json
import os
import pickle
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from transformers import Qwen2ForCausalLM

from tests.measure.flops import Work
from tests.measure.gpu import all_phases
from tests.measure.phases import RESULTS, Measurement, Phase, Report, run_phases
from tests.measure.processes import start
from tests.measure.rates import rates
from tests.measure.sizes import QWEN_05, QWEN_15, TINY, Shape
from tests.measure.table import table_of
from tests.measure.tried_phase import works

# q and o 2 x 4 x 4, k and v 2 x 4 x 2, gate, up and down 3 x 4 x 8
SHAPE = Shape("by hand", 1, 4, 2, 1, 8, 10, head_width=2)
ROW = {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5, 6]}


def measurement(tmp_path: Path, device: str = "cpu") -> Measurement:
    return Measurement(device, TINY, tmp_path, tmp_path)


def overruns(measurement: Measurement, report: Report) -> None:
    """And has a process of its own."""
    child = start("cpu", time.sleep, 600)
    report(what="before", child=child.pid)
    time.sleep(600)


def raises(measurement: Measurement, report: Report) -> None:
    report(what="before")
    raise MemoryError("too much\nand more")


def dies(measurement: Measurement, report: Report) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def finds_a_fault(measurement: Measurement, report: Report) -> None:
    report(what="a loss", wrong=["it is 1"])


def runs(pid: int) -> bool:
    """An ended one is there until somebody has asked how it ended."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def outcomes(results: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {row["phase"]: (row["outcome"], row.get("why", "")) for row in results if "outcome" in row}


def test_a_phase_that_overruns_fails_or_dies_takes_no_other_with_it(tmp_path: Path) -> None:
    phases = [
        Phase("first", works, 60),
        Phase("overruns", overruns, 2),
        Phase("raises", raises, 60),
        Phase("dies", dies, 60),
        Phase("needy", works, 60, needs=("first", "raises")),
        Phase("last", partial(works, number=2), 60),
    ]
    results = run_phases(phases, measurement(tmp_path), 600)
    assert outcomes(results) == {
        "first": ("done", ""),
        "overruns": ("killed", "not done after 2 s"),
        "raises": ("failed", "MemoryError: too much"),
        "dies": ("failed", "its process ended with status -9, see log.txt"),
        "needy": ("not run", "raises did not succeed"),
        "last": ("done", ""),
    }
    assert [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()] == results
    rows = {row["phase"]: row for row in results if "outcome" not in row}
    assert (rows["first"]["number"], rows["first"]["seen"]) == (1, 0)
    assert (rows["last"]["number"], rows["last"]["seen"]) == (2, 8)  # all results before it
    assert not runs(rows["overruns"]["child"])
    assert "MemoryError: too much" in (tmp_path / "log.txt").read_text()


def test_nothing_follows_a_fault_where_numbers_would_mean_nothing(tmp_path: Path) -> None:
    for decides, last in ((True, ("not run", "check found something wrong")), (False, ("done", ""))):
        phases = [Phase("check", finds_a_fault, 60, decides=decides), Phase("after", works, 60)]
        ends = outcomes(run_phases(phases, measurement(tmp_path), 600))
        assert ends == {"check": ("wrong", "it is 1"), "after": last}


def test_the_seconds_of_all_phases_bound_each(tmp_path: Path) -> None:
    phases = [Phase("overruns", overruns, 600), Phase("after", works, 600)]
    ends = outcomes(run_phases(phases, measurement(tmp_path), 1))
    assert ends["overruns"][0] == "killed"
    assert ends["after"] == ("not run", "the time is used up")


def test_on_a_gpu_a_phase_starts_from_nothing(tmp_path: Path) -> None:
    """By spawning: what a phase is made of must travel to a process that has imported nothing."""
    results = run_phases([Phase("first", works, 600)], measurement(tmp_path, "cuda:0"), 600)
    assert outcomes(results) == {"first": ("done", "")}
    assert [phase.name for phase in pickle.loads(pickle.dumps(all_phases()))] == [phase.name for phase in all_phases()]


def test_operations_are_counted_by_hand() -> None:
    """Sequences of 3 and 5 tokens, 4 of them completions; 6 + 15 pairs of a query and a key that it sees."""
    assert SHAPE.linear_weights == 32 + 16 + 96
    work = Work.of([ROW])
    assert work == Work(tokens=8, completions=4, visible=21)
    assert work.flops(SHAPE) == 6 * 144 * 8 + 6 * 4 * 10 * 4 + 12 * 1 * 4 * 21 == 8880


@pytest.mark.parametrize(("shape", "parameters"), [(QWEN_05, 494_032_768), (QWEN_15, 1_543_714_304)])
def test_shapes_are_qwens(shape: Shape, parameters: int) -> None:
    with torch.device("meta"):
        model = Qwen2ForCausalLM(shape.config())
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    linear = [module for module in model.model.layers.modules() if isinstance(module, torch.nn.Linear)]
    assert sum(module.weight.numel() for module in linear) == shape.linear_weights


def test_mfu_is_over_the_datasheet_on_a_gpu_and_over_the_measured_product_anywhere() -> None:
    earlier = ({"phase": "ceilings", "flops_per_second": 500e12},)
    on_gpu = Measurement("cuda:0", TINY, Path(), Path(), earlier)
    found = rates(on_gpu, SHAPE, Work.of([ROW]), seconds=8880 / 98.9e12)
    assert found["mfu"] == pytest.approx(0.1)
    assert found["mfu_of_measured"] == pytest.approx(98.9 / 500)
    assert found["us_per_token"] == pytest.approx(8880 / 98.9e12 / 8 * 1e6)
    without = rates(Measurement("cpu", TINY, Path(), Path()), SHAPE, Work.of([ROW]), seconds=1.0)
    assert set(without) == {"us_per_token", "flops_per_second"}


def test_a_table_shows_numbers_and_faults_and_invents_nothing() -> None:
    results = [
        {"phase": "a", "what": "timed", "us_per_token": 2.5, "peak_gib": None, "says": "well"},
        {"phase": "a", "outcome": "done", "seconds": 3.2},
        {"phase": "b", "outcome": "killed", "why": "not done after 2 s", "seconds": 2.0},
    ]
    table = table_of(results, "a card")
    columns = [list(column.cells) for column in table.columns]
    assert columns[2:5] == [["2.5", ""], ["GPU only", ""], ["", ""]]
    assert [cells[1] for cells in (columns[0], columns[1], columns[-1])] == ["b", "killed", "not done after 2 s"]
    assert table.caption == "seconds: a 3, b 2"
