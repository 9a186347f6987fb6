"""What the doctor says of the sources themselves: no Ray is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import Caution
from mixdpo_ray.doctor.input_checks import data, pairs
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


def test_each_source_of_a_mix_is_looked_at(tmp_path: Path) -> None:
    tree = sound(tmp_path)
    equipped = [
        {**row, "tools": [{"name": "clock"}]}
        for row in map(json.loads, (tmp_path / "pairs.jsonl").read_text().splitlines())
    ]
    (tmp_path / "more.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in equipped))
    plain = {"format": "plain", "columns": {"tools": "tools"}}
    mix: dict[str, dict[str, Any]] = {
        "one": {"path": str(tmp_path / "pairs.jsonl"), "weight": 0.5},
        "two": {"path": str(tmp_path / "more.jsonl")},
    }
    mix["two"] |= plain
    examination = Examination(changed(tree, data__source={"mix": mix}), tmp_path)
    assert [part.partition(": ")[0] for part in data(examination).split("; ")] == [one["path"] for one in mix.values()]
    said = pairs(examination)
    assert isinstance(said, Caution)
    first, second, ignored = said.text.split("; ")
    assert first.startswith("one: 64 of the first 64 are kept")
    assert second.startswith("two: 64 of the first 64 are kept")
    assert ignored.startswith("64 pairs have tools, and the chat template renders them as if there were none")
