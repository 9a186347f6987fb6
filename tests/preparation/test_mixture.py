"""A table of a mix: every row of every source is counted, and margins are comparable by source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import FormatError, QuarantineError
from mixdpo_ray.preparation.mixture import MIXTURE
from mixdpo_ray.preparation.prepare import describe_table, prepared_table
from tests.pairs.samples import SAMPLES
from tests.preparation.preparations import ON_THE_CLUSTER, recipe, some_rows, write_jsonl

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

OURS = {"prompt": "q", "chosen": "best", "rejected": "worst", "score_chosen": "s1", "score_rejected": "s2"}


def a_mix(folder: Path, **code: Any) -> dict[str, Any]:
    """60 pairs of chat, three of which cannot be read and two that code has too; 40 of code in columns of its own."""
    chat, others = some_rows(60), some_rows(40, seed=1)
    renamed = [{theirs: row[ours] for ours, theirs in OURS.items()} for row in [*others, *chat[:2]]]
    return {
        "chat": {"path": write_jsonl(folder / "chat.jsonl", [*chat, "{", "{", "{"]), "weight": 0.5},
        "code": {"path": write_jsonl(folder / "code.jsonl", renamed), "columns": OURS, **code},
    }


def test_every_row_of_every_source_is_kept_or_refused_by_name(tmp_path: Path) -> None:
    one = recipe(tmp_path, {"mix": a_mix(tmp_path)})
    table, again = prepared_table(one), prepared_table(one.model_copy(update={"output": one.output}), ON_THE_CLUSTER)
    assert again.manifest.content_digest == table.manifest.content_digest
    manifest = table.manifest
    facts = manifest.facts[MIXTURE]
    assert (facts["chat"]["rows"], facts["code"]["rows"]) == (63, 42)
    assert manifest.quarantined["duplicate_pair"] == 2
    assert sum(of["refused"] for of in facts.values()) == 5
    assert manifest.quarantined["left_out_by_weight"] == facts["chat"]["left_out"] in (29, 30)
    assert facts["code"]["left_out"] == 0
    assert sum(of["kept"] for of in facts.values()) == manifest.rows_kept
    assert all(of["rows"] == of["kept"] + of["refused"] + of["left_out"] for of in facts.values())
    lines = describe_table(table, one).splitlines()
    assert next(line for line in lines if line.startswith("source")).split()[:3] == ["source", "rows", "in"]
    assert any(line.split()[:2] == ["chat", "63"] for line in lines)


def test_a_table_of_divisors_and_ranks_know_the_names_of_the_mix(tmp_path: Path) -> None:
    mix = a_mix(tmp_path)
    mix["chat"]["weight"] = 1.0
    divided = prepared_table(recipe(tmp_path, {"mix": mix}, margin_scale={"chat": 1.0, "code": 100.0}))
    facts = divided.manifest.facts[MIXTURE]
    assert facts["code"]["median_margin"] < 0.05 < facts["chat"]["median_margin"]
    ranked = prepared_table(recipe(tmp_path, {"mix": mix}, margin_scale="quantile")).index("train").margin
    assert (ranked.min(), ranked.max() < 1) == (0, True)


def test_a_source_keeps_its_own_limit_of_refused_rows(tmp_path: Path) -> None:
    with pytest.raises(QuarantineError, match=r"data\.source\.mix\.code\.max_quarantined_fraction allows 1\.0%"):
        prepared_table(recipe(tmp_path, {"mix": a_mix(tmp_path, max_quarantined_fraction=0.01)}))


def test_margins_of_which_some_are_divided_and_others_not_are_refused(tmp_path: Path) -> None:
    mix = a_mix(tmp_path)
    rated = tmp_path / "rated.jsonl"
    rated.write_text(json.dumps(SAMPLES["dpo_mix_7k"].rows[0]) + "\n")
    mix["rated"] = {"path": str(rated)}
    with pytest.raises(FormatError, match="auto divides the margins of rated by their rating scale and"):
        prepared_table(recipe(tmp_path, {"mix": mix}, margin_scale="auto"))
