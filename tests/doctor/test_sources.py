"""What the doctor says of the sources themselves: no Ray is asked."""

from __future__ import annotations

import json
from pathlib import Path

from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.input_checks import data
from tests.doctor.examinations import changed, sound
from tests.pairs.samples import SAMPLES


def test_a_rule_for_pairing_is_not_asked_of_held_out_pairs(tmp_path: Path) -> None:
    rated, held_out = tmp_path / "rated.jsonl", tmp_path / "pairs.jsonl"
    rated.write_text(json.dumps(SAMPLES["ultrafeedback"].rows[0]) + "\n")
    recipe = changed(
        sound(tmp_path),
        data__source__path=str(rated),
        data__pair={"rule": "max_min"},
        data__heldout__source={"path": str(held_out)},
    )
    said = data(Examination(recipe, tmp_path))
    assert "format ultrafeedback; " in said
    assert said.endswith("format ultrafeedback_binarized")
