"""The closing lines of a search: how sure its winner is, in the words of its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna

from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.search.output import StudyOutput
from mixdpo_ray.search.space import Space

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground.yaml"


def output(folder: Path, *scores: float, pairs: float | None = 15.0, overrides: Sequence[str] = ()) -> StudyOutput:
    study = optuna.create_study(direction="maximize")
    for score in scores:
        metrics = {} if pairs is None else {"eval_pairs/margin_1-2": pairs}
        attributes = {"settings": {"objective.beta": 0.1}, "metrics": metrics}
        study.add_trial(optuna.trial.create_trial(value=score, user_attrs=attributes))
    recipe = load_recipe(str(RECIPE), ["tune.metric=accuracy", "tune.num_samples=3", *overrides])
    return StudyOutput(
        recipe, str(folder), Space(()), study, {1: 19}, "", ["jobs/tune.py", "a.yaml", "tune.num_samples=3"]
    )


def closing_lines(folder: Path, *scores: float, pairs: float | None = 15.0) -> list[str]:
    return output(folder, *scores, pairs=pairs).describe().splitlines()


def test_the_last_line_says_that_trials_cannot_be_told_apart(tmp_path: Path) -> None:
    """Of 15 pairs 10, 9, 4 and 10 were right; a standard error is 0.11."""
    lines = closing_lines(tmp_path, 10 / 15, 9 / 15, 4 / 15, 10 / 15)
    assert lines[1] == (
        "  best     trial 0: held-out preference accuracy 0.6667 (95 % interval 0.417 to 0.848 of 15 held-out pairs)"
    )
    assert lines[-1] == "  Within one standard error of it: trials 1 and 3; this study cannot tell them apart."


def test_a_winner_without_a_rival_is_said_to_have_none(tmp_path: Path) -> None:
    lines = closing_lines(tmp_path, 0.6, 0.9, pairs=1000.0)
    assert lines[-1] == "  No other trial comes within one standard error of it."


def test_where_the_pairs_were_not_counted_nothing_is_claimed(tmp_path: Path) -> None:
    lines = closing_lines(tmp_path, 0.6, 0.6, pairs=None)
    assert lines[1] == "  best     trial 0: held-out preference accuracy 0.6000"
    assert lines[-1].startswith("  picture")


def test_the_command_that_extends_a_study_asks_for_more_trials_than_have_ended(tmp_path: Path) -> None:
    assert output(tmp_path, 0.5)._tune_command.endswith(" jobs/tune.py a.yaml tune.num_samples=3")
    six = output(tmp_path, *[0.5] * 6)._tune_command
    assert six.endswith(" jobs/tune.py a.yaml tune.num_samples=12")


def test_a_grid_that_has_ended_is_not_extended(tmp_path: Path) -> None:
    """A grid has no more points, however many trials are asked for."""
    grid = output(tmp_path, *[0.5] * 6, overrides=["tune.sampler=grid"])
    assert grid._tune_command.endswith(" jobs/tune.py a.yaml tune.num_samples=3")
