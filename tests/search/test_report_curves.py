from __future__ import annotations

import json
from pathlib import Path

from mixdpo_ray.search.report.curves import read_curve
from tests.search.small_study import OWN, Maker


def test_a_curve_lies_over_the_share_of_the_curriculum_and_knows_where_sft_begins(tmp_path: Path) -> None:
    """Threshold 1: of the 126 steps of the whole curriculum the last 28 % are hard, which is from step 91 on."""
    maker = Maker.start(tmp_path)
    maker.add(OWN)
    curve = read_curve(maker.study.trials[0], maker.facts())
    assert curve is not None
    assert curve.switch == 91 / 126
    assert curve.accuracy[0] == (0.0, 0.5)
    assert curve.accuracy[-1][0] == 1.0
    assert curve.loss[-1][0] == 1.0
    assert [share for share, loss in curve.loss if loss is None] == [91 / 126]  # broken between two kinds of loss


def test_a_trial_that_ended_within_a_rung_fills_only_its_part_of_the_axis(tmp_path: Path) -> None:
    maker = Maker.start(tmp_path)
    maker.add(OWN, "FAIL", 0)
    path = tmp_path / "trials/0000/rung-3/metrics.jsonl"
    path.parent.mkdir(parents=True)
    lines = [json.dumps({"step": step, "stage": "easy", "loss": 0.5}) for step in range(21)]
    path.write_text("\n".join([*lines, '{"step": 21, "lo']))  # killed while it wrote
    curve = read_curve(maker.study.trials[0], maker.facts())
    assert curve is not None
    assert curve.switch is None
    assert curve.loss[-1][0] == 21 / 42
