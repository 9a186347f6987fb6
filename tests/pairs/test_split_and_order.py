"""Splits, duplicates and positions from narrow keys; the order of the keys never matters."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.pairs.settings import HeldoutSettings, SourceSettings
from mixdpo_ray.pairs.split_and_order import KEY_SCHEMA, Arrangement, arrange

NO_HELDOUT = HeldoutSettings(fraction=0)
APART = HeldoutSettings(source=SourceSettings(path="held"))


def name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def key(
    pair: str, margin: float, row: int, file: str = "a", held: bool = False, prompt: str | None = None
) -> dict[str, Any]:
    return {
        "source_number": int(held),
        "pair_id": name(pair),
        "prompt_id": name(prompt or pair),
        "score_chosen": 5 + margin,
        "score_rejected": 5.0,
        "margin": margin,
        "source": "plain",
        "prompt_length": 3,
        "chosen_length": 4,
        "rejected_length": 5,
        "file": file,
        "row": row,
        "candidate": 0,
    }


def keys(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), KEY_SCHEMA)


def arranged(table: pa.Table, heldout: HeldoutSettings = NO_HELDOUT, quantiles: bool = False) -> Arrangement:
    return arrange(table, heldout, CurriculumSettings(), quantiles)


def test_larger_margins_come_first() -> None:
    result = arranged(keys(key("p", 0.5, 0), key("q", 3.0, 1), key("r", 1.0, 2)))
    assert result.train.tolist() == [1, 2, 0]


def test_of_equal_duplicates_the_first_by_file_and_row_is_kept() -> None:
    table = keys(key("p", 1.0, 4, "b"), key("p", 1.0, 9, "a"), key("p", 1.0, 7, "a"), key("q", 2.0, 0, "c"))
    result = arranged(table)
    assert result.train.tolist() == [3, 2]
    assert result.refused["duplicate_pair"].tolist() == [0, 1]


def test_of_duplicates_with_other_ratings_the_smallest_margin_is_kept() -> None:
    result = arranged(keys(key("p", 2.0, 0), key("p", 0.5, 1), key("p", 1.0, 2)))
    assert result.train.tolist() == [1]


def test_a_training_pair_whose_prompt_is_held_out_is_refused() -> None:
    table = keys(
        key("p", 1.0, 0, prompt="x"), key("q", 2.0, 1, prompt="y"), key("r", 1.0, 0, "held", held=True, prompt="x")
    )
    result = arranged(table, APART)
    assert (result.train.tolist(), result.heldout.tolist()) == ([1], [2])
    assert result.refused["prompt_in_heldout"].tolist() == [0]


def test_the_same_pair_in_both_sources_is_a_leak_and_no_duplicate() -> None:
    result = arranged(keys(key("p", 1.0, 0), key("p", 1.0, 0, "held", held=True)), APART)
    assert (result.train.tolist(), result.heldout.tolist()) == ([], [1])
    assert result.refused["duplicate_pair"].tolist() == []


def test_prompts_of_a_full_held_out_source_are_kept_out_of_training_too() -> None:
    held = [key(f"h{n}", n / 2, n, "held", held=True, prompt=f"x{n}") for n in range(6)]
    table = keys(*held, *(key(f"p{n}", 1.0, n, prompt=f"x{n}") for n in range(6)), key("q", 1.0, 6))
    result = arranged(table, HeldoutSettings(source=SourceSettings(path="held"), max_pairs=2))
    assert result.train.tolist() == [12]
    assert len(result.heldout) == 2
    assert len(result.refused["heldout_is_full"]) == 4
    assert len(result.refused["prompt_in_heldout"]) == 6


def test_the_order_of_the_keys_does_not_matter() -> None:
    rows = [key(f"p{n % 150}", n % 7 / 2, n, prompt=f"x{n % 50}") for n in range(200)]
    shuffle = np.random.default_rng(0).permutation(200)
    heldout = HeldoutSettings(fraction=0.2)
    first, second = arranged(keys(*rows), heldout, True), arranged(keys(*(rows[i] for i in shuffle)), heldout, True)
    assert len(first.heldout) > 10
    assert first.train.tolist() == shuffle[second.train].tolist()
    assert first.heldout.tolist() == shuffle[second.heldout].tolist()
    assert first.margin[first.train].tolist() == second.margin[second.train].tolist()


def test_no_keys_at_all_are_arranged_into_nothing() -> None:
    result = arranged(KEY_SCHEMA.empty_table(), HeldoutSettings(), True)
    assert len(result.train) == len(result.heldout) == 0
