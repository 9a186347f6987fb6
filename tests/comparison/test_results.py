"""From outcomes to a table: means, paired differences, what failed, and the picture."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.comparison.picture import picture
from mixdpo_ray.comparison.results import Outcome, ResultRow, result_rows, write_results
from mixdpo_ray.comparison.table import digits_for, notes_text, shown, table_text
from mixdpo_ray.intervals import Estimate, ends_of
from mixdpo_ray.training.held_out_pairs import HeldOutPairs

DPO = [Outcome("dpo", seed, {"quality": value}, 4.0) for seed, value in enumerate((7.0, 8.0, 9.0))]
MIX = [Outcome("mix", seed, {"quality": value}, 2.0) for seed, value in enumerate((7.4, 8.5, 9.6))]
BAD = [Outcome("bad", 0, {"quality": 1.0}, 1.0), Outcome("bad", 1, failure="step 3: the loss is not finite")]


def rows() -> dict[str, ResultRow]:
    return {row.arm: row for row in result_rows([*DPO, *MIX, *BAD], ["dpo", "mix", "bad"], "dpo", same_pairs=False)}


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
    assert cells[0] == ["arm", "true quality, mean", "against dpo", "seeds", "seconds"]
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
    drawn = picture(
        result_rows([*DPO, *MIX, *failed], ["dpo", "mix", "worse"], "dpo", same_pairs=False), "quality", "dpo"
    )
    assert drawn.startswith(b"\x89PNG")


ACCURACY = "eval_rewards/accuracies"


def judged(arm: str, seed: int, right: str, *, kept: bool = True, first: int = 0) -> Outcome:
    """`right`: 1 or 0 for each held-out pair."""
    values = np.array(list(map(float, right)))
    ids = [f"pair-{first + number}" for number in range(len(right))]
    pairs = HeldOutPairs.of(ids, {"rewards/accuracies": values})
    return Outcome(arm, seed, {ACCURACY: float(values.mean())}, 1.0, pairs=pairs if kept else None)


def accuracies(*outcomes: Outcome) -> tuple[ResultRow, ...]:
    return tuple(result_rows(outcomes, ["dpo", "mix"], "dpo", same_pairs=True))


def cells(rows: tuple[ResultRow, ...]) -> list[list[str]]:
    lines = table_text(rows, ACCURACY, "dpo").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_equal_seeds_on_fifteen_pairs_are_no_certainty() -> None:
    """Five pairs more of fifteen, twice, were once printed as +0.333 ± 0.000 *; a sign test gives them 6 in 100."""
    shown, starred = {}, {}
    for more in (5, 6):
        worse = "1" * (15 - more) + "0" * more
        rows = accuracies(
            *(judged(arm, seed, right) for arm, right in (("dpo", worse), ("mix", "1" * 15)) for seed in (0, 1))
        )
        shown[more], starred[more] = cells(rows), rows[1].difference(ACCURACY).excludes_zero
    head, _, dpo, mix = shown[5]
    assert head == ["arm", "held-out preference accuracy, mean", "against dpo", "seeds", "pairs", "seconds"]
    assert dpo == ["dpo", "0.67 (0.39 to 0.94)", "", "2", "15", "1.0"]
    assert mix == ["mix", "1.00 (0.74 to 1.00)", "+0.33 (-0.00 to +0.67)", "2", "15", "1.0"]
    assert starred == {5: False, 6: True}


def test_a_star_needs_seeds_that_agree_and_pairs_enough() -> None:
    many = [judged("dpo", seed, "10" * 100) for seed in (0, 1)]
    agree = accuracies(*many, *(judged("mix", seed, "1110" * 50) for seed in (0, 1)))
    differ = accuracies(*many, judged("mix", 0, "1" * 200), judged("mix", 1, "10" * 100))
    assert agree[1].difference(ACCURACY).mean == differ[1].difference(ACCURACY).mean == 0.25
    assert agree[1].difference(ACCURACY).excludes_zero
    assert not differ[1].difference(ACCURACY).excludes_zero


def test_of_one_seed_the_error_of_the_pairs_is_shown_without_a_star() -> None:
    rows = accuracies(judged("dpo", 0, "10" * 50), judged("mix", 0, "1" * 100))
    assert cells(rows)[3][2] == "+0.500 (+0.388 to +0.612)"
    assert "With one seed it is over held-out pairs alone" in notes_text(rows, ACCURACY)


@pytest.mark.parametrize("other", [{"kept": False}, {"first": 3}], ids=["an earlier version", "other pairs"])
def test_without_values_of_the_same_pairs_the_table_says_so_and_has_no_star(other: dict[str, Any]) -> None:
    old = [judged("dpo", seed, "1" * (10 + seed) + "0" * (90 - seed)) for seed in range(3)]
    rows = accuracies(*old, *(judged("mix", seed, "1" * 90 + "0" * 10, **other) for seed in range(3)))
    assert rows[1].difference(ACCURACY).low > 0
    assert "*" not in cells(rows)[3][2]
    assert notes_text(rows, ACCURACY).splitlines()[1].endswith("no mean over pairs): mix")


def test_in_a_playground_of_each_seed_equal_ones_have_no_interval() -> None:
    outcomes = [
        Outcome(arm, seed, {"quality": value}) for arm, value in (("dpo", 7.0), ("mix", 8.0)) for seed in (0, 1)
    ]
    rows = result_rows(outcomes, ["dpo", "mix"], "dpo", same_pairs=False)
    assert [cell.strip() for cell in table_text(rows, "quality", "dpo").splitlines()[3].split("|")[2:4]] == [
        "8.000", "+1.000",
    ]  # fmt: skip
    assert "No interval: one seed, or equal ones" in notes_text(rows, "quality")


def test_no_interval_of_a_share_leaves_what_a_share_can_be() -> None:
    few = [judged("dpo", 0, "1110"), judged("mix", 0, "1111")]
    assert [row[1] for row in cells(accuracies(*few))[2:]] == ["0.75 (0.08 to 1.00)", "1.00 (0.26 to 1.00)"]
    assert shown(Estimate(0.9, 0.4, 2), 2, "+", ends_of("win_rate", difference=True)) == "+0.90 (+0.50 to +1.00)"
    assert shown(Estimate(0.9, 0.4, 2), 2, ends=ends_of("eval_loss")) == "0.90 ± 0.40"
