from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from pydantic import ValidationError

from mixdpo_ray.curriculum.threshold import Threshold
from mixdpo_ray.pairs.histogram import MarginHistogram, margin_histogram
from mixdpo_ray.pairs.report import Stages, _draw_bars, accounting_text, draw, histogram_text, stages, thresholds_text

GRID = np.array([2.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.5])


def test_the_accounting_shows_what_came_in_what_was_kept_and_every_reason() -> None:
    text = accounting_text(1000, 940, {"empty_answer": 20, "nan_score": 40}, {"swapped": 5})
    lines = [line.split() for line in text.splitlines()]
    assert lines[0] == ["rows", "in", "1,000"]
    assert lines[1] == ["kept", "940", "94.0", "%"]
    assert lines[2][:5] == ["refused:", "nan_score", "40", "4.0", "%"]
    assert lines[3][:5] == ["refused:", "empty_answer", "20", "2.0", "%"]
    assert lines[3][5:] == ["an", "answer", "has", "no", "text"]
    assert lines[4] == ["of", "those", "kept:", "swapped", "5", "0.5", "%"]


def test_nothing_at_all_can_be_reported() -> None:
    assert accounting_text(0, 0, {}).splitlines()[1].split() == ["kept", "0", "0.0", "%"]
    assert margin_histogram(np.zeros(0)) == MarginHistogram()
    assert histogram_text(MarginHistogram()).split() == ["margin", "pairs"]


def test_on_a_grid_every_margin_is_a_bin_of_its_own() -> None:
    histogram = margin_histogram(GRID)
    assert histogram.on_grid
    assert (histogram.low, histogram.count) == ((0.0, 0.5, 2.0), (2, 4, 1))


def test_margins_that_differ_in_their_last_bits_are_one_value_of_the_grid() -> None:
    assert margin_histogram(np.array([0.3, 0.1 + 0.2])).count == (2,)


def test_elsewhere_bins_have_one_width_and_hold_every_pair() -> None:
    histogram = margin_histogram(np.linspace(0, 1, 1001))
    assert not histogram.on_grid
    assert sum(histogram.count) == 1001
    assert histogram.high[0] - histogram.low[0] == pytest.approx(1 / len(histogram.count))


def test_bins_without_counts_cannot_be_made() -> None:
    with pytest.raises(ValidationError, match="1 lower edges, 1 upper ones, 0 counts"):
        MarginHistogram(low=(0.0,), high=(1.0,))


def test_bars_are_as_long_as_their_counts() -> None:
    lines = histogram_text(margin_histogram(GRID)).splitlines()
    assert [line.count("█") for line in lines] == [0, 20, 40, 10]
    assert lines[2].split()[:4] == ["0.5", "4", "57.1", "%"]


def test_a_bar_too_short_to_draw_is_still_seen_and_an_empty_one_is_not() -> None:
    histogram = MarginHistogram(low=(0, 1, 2), high=(1, 2, 3), count=(1000, 1, 0))
    assert [line.endswith("▏") for line in histogram_text(histogram).splitlines()[1:]] == [False, True, False]


def test_each_threshold_of_the_grid_shows_the_pairs_and_steps_of_both_stages() -> None:
    """Seven pairs, three a step: below 0.5 lie the two ties, below 2.0 six pairs."""
    assert stages(GRID, 3) == [
        Stages(0.0, easy=7, hard=0, easy_steps=3, hard_steps=0),
        Stages(0.5, easy=5, hard=2, easy_steps=2, hard_steps=1),
        Stages(2.0, easy=1, hard=6, easy_steps=1, hard_steps=2),
    ]
    assert thresholds_text(GRID, 3).splitlines()[2].split() == ["0.5", "5", "2", "2", "1", "28.6", "%"]


@pytest.mark.parametrize(
    ("threshold", "line", "row"),
    [
        (Threshold(), 2, ["0.5", "5", "2", "2", "1", "28.6", "%"]),
        (Threshold(value=0.7), 3, ["0.7", "1", "1", "6", "2", "85.7", "%"]),
        (Threshold(value=99), 4, ["99", "0", "0", "7", "3", "100.0", "%"]),
        (Threshold(hard_fraction=0.3), 3, ["hard_fraction=0.3", "5", "2", "2", "1", "28.6", "%"]),
        (Threshold(value=0.5, tie_rule="le"), 3, ["0.5,", "tie_rule=le", "1", "1", "6", "2", "85.7", "%"]),
    ],
)
def test_the_threshold_of_the_recipe_is_marked_in_its_place(threshold: Threshold, line: int, row: list[str]) -> None:
    lines = thresholds_text(GRID, 3, threshold).splitlines()
    mark = "<- this recipe's" if threshold.given else "<- the default"
    assert [number for number, text in enumerate(lines) if text.endswith(mark)] == [line]
    assert lines[line].removesuffix(mark).split() == row


def test_without_a_grid_thresholds_are_round_shares_of_hard_pairs() -> None:
    shares = [stage.hard / 1000 for stage in stages(np.arange(1000) / 7919, 128)]
    assert shares == pytest.approx([0.05, 0.1, 0.12, 0.2, 0.25, 0.3, 0.5], abs=0.001)


@pytest.mark.parametrize("threshold", [None, Threshold(hard_count=3), Threshold(hard_fraction=0), Threshold(value=99)])
def test_the_picture_is_a_png_for_any_threshold(tmp_path: Path, threshold: Threshold | None) -> None:
    draw(str(tmp_path / "picture.png"), GRID, threshold)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("margins", [np.zeros(5), np.random.default_rng(0).exponential(1, 300)], ids=["ties", "floats"])
def test_the_picture_is_a_png_for_any_margins(tmp_path: Path, margins: np.ndarray[Any, Any]) -> None:
    for threshold in (None, Threshold(value=0.5)):
        draw(str(tmp_path / "picture.png"), margins, threshold)
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("margins", "threshold", "place", "label"),
    [
        (GRID, Threshold(), 0.5, " threshold: hard below 0.5"),
        (GRID, Threshold(value=0.5, tie_rule="le"), 0.5, " threshold: hard up to 0.5"),
        (GRID, Threshold(value=2.0), 2.0, "threshold: hard below 2 "),
        (GRID, Threshold(hard_count=2), 0.25, " threshold: the hardest 2"),
        (GRID, Threshold(value=99), None, "threshold: hard below 99 \u2192"),
    ],
)
def test_the_picture_marks_the_threshold_where_it_is(
    margins: np.ndarray[Any, Any], threshold: Threshold, place: float | None, label: str
) -> None:
    axes = Figure().subplots()
    _draw_bars(axes, margins, threshold)
    assert [text.get_text() for text in axes.texts] == [label]
    assert [float(np.asarray(line.get_xdata())[0]) for line in axes.lines] == ([] if place is None else [place])


@pytest.mark.parametrize("threshold", [Threshold(), Threshold(value=99), Threshold(hard_count=0)])
def test_the_tallest_bar_does_not_touch_the_frame_and_the_counts_stand_above(threshold: Threshold) -> None:
    axes = Figure().subplots()
    _draw_bars(axes, GRID, threshold)
    assert axes.get_ylim()[1] > 1.1 * 4
    hard = threshold.hard_pairs(GRID)
    legend = axes.get_legend()
    assert legend is not None
    said = [text.get_text() for text in legend.get_texts()]
    assert [text.split(" (")[0] for text in said] == [f"hard: {hard}", f"easy: {7 - hard}"]
