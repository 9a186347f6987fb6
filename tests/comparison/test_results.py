"""From outcomes to a table: means, paired differences, what failed, and the picture."""

from __future__ import annotations

import csv
import io

import pytest

from mixdpo_ray.comparison.picture import picture
from mixdpo_ray.comparison.results import Outcome, ResultRow, result_rows, write_results
from mixdpo_ray.comparison.student import Estimate
from mixdpo_ray.comparison.table import digits_for, notes_text, shown, table_text

DPO = [Outcome("dpo", seed, {"quality": value}, 4.0) for seed, value in enumerate((7.0, 8.0, 9.0))]
MIX = [Outcome("mix", seed, {"quality": value}, 2.0) for seed, value in enumerate((7.4, 8.5, 9.6))]
BAD = [Outcome("bad", 0, {"quality": 1.0}, 1.0), Outcome("bad", 1, failure="step 3: the loss is not finite")]


def rows() -> dict[str, ResultRow]:
    return {row.arm: row for row in result_rows([*DPO, *MIX, *BAD], ["dpo", "mix", "bad"], "dpo")}


def test_differences_are_paired_by_seed() -> None:
    """0.4, 0.5, 0.6: mean 0.5, half 4.303 * 0.1 / sqrt(3) = 0.248; the two intervals alone would overlap widely."""
    difference = rows()["mix"].difference("quality")
    assert difference.mean == pytest.approx(0.5)
    assert difference.half == pytest.approx(0.2484, abs=1e-4)
    assert difference.excludes_zero
    assert rows()["mix"].mean("quality").low < rows()["dpo"].mean("quality").high


def test_a_seed_that_failed_counts_in_neither_mean_nor_difference() -> None:
    bad = rows()["bad"]
    assert bad.values("quality") == {0: 1.0}
    assert bad.gaps("quality") == [-6.0]
    assert [one.state for one in bad.outcomes] == ["ended", "failed"]


def test_the_table_marks_what_excludes_zero_and_names_what_failed() -> None:
    found = list(rows().values())
    lines = table_text(found, "quality", "dpo").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["arm", "quality, mean", "against dpo", "seeds", "seconds"]
    assert cells[2] == ["dpo", "8.00 ± 2.48", "", "3", "4.0"]
    assert cells[3] == ["mix", "8.50 ± 2.73", "+0.50 ± 0.25 *", "3", "2.0"]
    assert cells[4] == ["bad", "1.00", "-6.00", "1", "1.0"]
    assert len({len(line) for line in lines}) == 1
    assert "bad, seed 1 failed: step 3: the loss is not finite" in notes_text(found, "quality").splitlines()


def test_a_column_has_as_many_digits_as_its_usual_interval_is_worth() -> None:
    assert digits_for([Estimate(8.4, 0.12, 5), Estimate(8.5, 0.0031, 5), Estimate(8.6, 2.5, 5)]) == 2
    assert digits_for([Estimate(0.74, 0.0042, 5)]) == 4
    assert digits_for([Estimate.of([1.5]), Estimate.of([]), Estimate.of([2.0, 2.0])]) == 3


def test_an_estimate_is_shown_with_what_it_has() -> None:
    assert shown(Estimate(8.4567, 0.1234, 5), 2) == "8.46 ± 0.12"
    assert shown(Estimate(0.7432, 0.0042, 5), 4, "+") == "+0.7432 ± 0.0042"
    assert shown(Estimate.of([1.5]), 3) == "1.500"
    assert shown(Estimate.of([]), 3) == ""


def test_the_csv_has_a_row_for_every_arm_and_seed() -> None:
    table = list(csv.DictReader(io.StringIO(write_results([*DPO, *BAD, Outcome("late", 0)]))))
    assert [(row["arm"], row["seed"], row["state"], row["quality"]) for row in table] == [
        ("dpo", "0", "ended", "7.0"), ("dpo", "1", "ended", "8.0"), ("dpo", "2", "ended", "9.0"),
        ("bad", "0", "ended", "1.0"), ("bad", "1", "failed", ""), ("late", "0", "missing", ""),
    ]  # fmt: skip
    assert table[4]["failure"] == "step 3: the loss is not finite"


def test_the_picture_is_drawn_also_where_an_arm_has_nothing_to_show() -> None:
    failed = [Outcome("worse", 0, failure="no")]
    drawn = picture(result_rows([*DPO, *MIX, *failed], ["dpo", "mix", "worse"], "dpo"), "quality", "dpo")
    assert drawn.startswith(b"\x89PNG")
