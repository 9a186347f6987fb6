"""curves.png: each loss in a panel of its own, held-out points with their error, whole steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
from PIL import Image

from mixdpo_ray.training.run_picture import draw_curves


def run_with(folder: Path, stages: str, evaluations: tuple[int, ...] = (0, 6), **held_out: float) -> Path:
    """`stages`: e, h or m for each step."""
    names = {"e": "easy", "h": "hard", "m": "mixed"}
    lines: list[dict[str, Any]] = []
    for step in range(len(stages) + 1):
        if step in evaluations:
            lines.append({"kind": "eval", "step": step, "eval_rewards/accuracies": 0.6, **held_out})
        if step < len(stages):
            line = {"step": step, "stage": names[stages[step]], "loss": 0.7, "data_margin/min": 0, "data_margin/max": 1}
            if stages[step] != "h":
                line |= {"rewards/accuracies": 0.6, "logps/chosen_drift": -0.1, "loss/easy": 0.6}
            if stages[step] != "e":
                line |= {"loss/hard": 2.1}
            lines.append(line)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that are saved, as matplotlib has them."""
    kept: list[Any] = []
    save = matplotlib.figure.Figure.savefig

    def keeping(figure: Any, *arguments: Any, **options: Any) -> None:
        kept.append(figure)
        save(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keeping)
    return kept


def labels(figure: Any) -> list[str]:
    return [axis.get_ylabel() for axis in figure.axes]


def test_a_run_with_both_stages_and_evaluations_is_drawn(tmp_path: Path) -> None:
    draw_curves(str(run_with(tmp_path, "eeeehh")))
    with Image.open(tmp_path / "curves.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    assert colours is not None
    assert {(27, 108, 168), (200, 85, 61)} <= {colour for _, colour in colours}  # training, and held out


def test_each_loss_has_a_panel_and_the_margins_too(tmp_path: Path, drawn: list[Any]) -> None:
    for number, stages in enumerate(("eeeehh", "mmmm", "eeee", "hh")):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        draw_curves(str(run_with(folder, stages)))
    both = ["preference loss", "loss of hard pairs", "preference accuracy", "chosen drift (nats)", "margins"]
    assert [labels(figure) for figure in drawn] == [both, both, [both[0], *both[2:]], both[1:]]


def test_a_run_of_an_earlier_version_without_the_losses_by_stage_is_drawn(tmp_path: Path, drawn: list[Any]) -> None:
    lines = [{"step": 0, "stage": "easy", "loss": 0.7, "data_margin/min": 0, "data_margin/max": 1}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(str(tmp_path))
    assert labels(drawn[0])[0] == "loss"


def test_two_held_out_points_are_no_trend_and_show_their_error(tmp_path: Path, drawn: list[Any]) -> None:
    for evaluations in ((0, 6), (0, 3, 6)):
        draw_curves(str(run_with(tmp_path, "eeeehh", evaluations, **{"eval_pairs/margin_1-2": 15.0})))
    for figure, lines in zip(drawn, (0, 1), strict=True):
        accuracy = figure.axes[2]
        joined = [line for line in accuracy.lines if line.get_color() == "#c8553d" and line.get_linestyle() == "-"]
        assert len([line for line in joined if len(line.get_xdata()) > 1]) == lines
        (bars,) = accuracy.containers
        assert bars.get_label() == "held out, 15 pairs (bars: 95 % interval)"


def test_ticks_are_whole_steps(tmp_path: Path, drawn: list[Any]) -> None:
    draw_curves(str(run_with(tmp_path, "eeehh")))
    assert {float(tick) % 1 for tick in drawn[0].axes[-1].get_xticks()} == {0.0}


def test_steps_are_counted_from_1_as_on_the_console_and_held_out_points_lie_at_the_steps_before_them(
    tmp_path: Path, drawn: list[Any]
) -> None:
    draw_curves(str(run_with(tmp_path, "eeeehh", (0, 4, 6), **{"eval_pairs/margin_1-2": 15.0})))
    panels = dict(zip(labels(drawn[0]), drawn[0].axes, strict=True))
    assert list(panels["preference loss"].lines[0].get_xdata()) == [1, 2, 3, 4]
    assert list(panels["loss of hard pairs"].lines[0].get_xdata()) == [5, 6]
    assert list(panels["margins"].lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6]
    points, _ = panels["preference accuracy"].lines[1:3]
    assert list(points.get_xdata()) == [0, 4, 6]


def test_held_out_points_have_one_entry_in_the_legend_whether_or_not_they_have_bars(
    tmp_path: Path, drawn: list[Any]
) -> None:
    """The drift's deviation is unknown to runs of earlier versions, the accuracy's follows from its value."""
    held_out = {"eval_logps/chosen_drift": -0.1, "eval_pairs/margin_1-2": 20.0}
    draw_curves(str(run_with(tmp_path, "eeee", (0, 4), **held_out)))
    told = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert told == ["training", "held out, 20 pairs (bars: 95 % interval)"]
