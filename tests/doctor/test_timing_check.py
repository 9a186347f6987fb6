"""The measured probe: real steps on the real cluster, and nothing of them is left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixdpo_ray.preparation.prepare import prepared_table
from tests.doctor.examinations import changed, findings, sound

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


def test_a_few_real_steps_tell_the_time_and_leave_nothing(tmp_path: Path) -> None:
    recipe = changed(sound(tmp_path), cluster__num_workers=1)
    before_preparing = findings(recipe, tmp_path, probe=True)["time"]
    assert before_preparing.text == "not checked: there is nothing to train on before jobs/prepare.py"
    prepared_table(recipe)
    before = sorted(tmp_path.rglob("*"))
    finding = findings(recipe, tmp_path, probe=True)["time"]
    assert finding.state == "green", finding
    assert re.match(
        r"[\d.]+ s for 1\d steps \(\d+\.\d\d s each at the start, [\d,]+ tokens/s\), and [\d.]+ s around", finding.text
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_steps_that_fail_make_it_red_with_the_reason(tmp_path: Path) -> None:
    tree = sound(tmp_path)
    recipe = changed(tree, cluster__num_workers=1, train__optimizer={"learning_rate": 1e38})
    prepared_table(recipe)
    before = sorted(tmp_path.rglob("*"))
    finding = findings(recipe, tmp_path, probe=True)["time"]
    assert finding.state == "red"
    assert "is not finite" in finding.text
    assert sorted(tmp_path.rglob("*")) == before
