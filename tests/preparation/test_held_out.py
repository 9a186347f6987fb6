"""Settings that need held-out pairs are refused where a table has none, and a table without any says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixdpo_ray.errors import RecipeError, TooFewPairsError
from mixdpo_ray.preparation.held_out import check_training_metrics, lack_of_held_out, require_held_out
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.prepared_table import (
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)
from tests.training.tiny import make_rows

BEST = "train.checkpoints.keep_best"


def recipe(keep_best: str | None = None, objective: str = "dpo", fraction: float = 0.05) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"path": "m"},
            "data": {"source": {"path": "p"}, "heldout": {"fraction": fraction}},
            "objective": {"name": objective},
            "train": {"checkpoints": {"keep_best": keep_best}},
        }
    )


def table(folder: Path, held_out: int) -> PreparedTable:
    """The margins of held-out pairs are below 2."""
    for split, count in (("train", 12), ("eval", held_out)):
        rows = make_rows(np.random.default_rng(0), np.linspace(0, 1.5, count), split[0])
        if count:
            write_part(str(folder), split, rows)
        write_index(str(folder), split, index_rows(rows))
    rows_of = {"train": 12, "eval": held_out}
    facts = {name: SplitFacts(rows=rows, first_positions=(0,) if rows else ()) for name, rows in rows_of.items()}
    commit(str(folder), Manifest(fingerprint="t", splits=facts, rows_in=12 + held_out, rows_kept=12 + held_out))
    return PreparedTable.open(str(folder))


def test_a_table_without_held_out_pairs_says_why_unless_none_were_wanted(tmp_path: Path) -> None:
    said = lack_of_held_out(recipe(), table(tmp_path / "none", 0))
    assert said is not None
    assert said.startswith(
        "no pair is held out, and nothing will tell how good the model is: data.heldout.fraction 0.05"
    )
    assert lack_of_held_out(recipe(fraction=0), table(tmp_path / "unwanted", 0)) is None
    assert lack_of_held_out(recipe(), table(tmp_path / "some", 3)) is None


def test_the_best_checkpoint_needs_held_out_pairs(tmp_path: Path) -> None:
    with pytest.raises(TooFewPairsError, match=f"^{BEST} needs held-out pairs: no pair is held out"):
        check_training_metrics(recipe("eval_rewards/accuracies"), table(tmp_path / "none", 0))
    check_training_metrics(recipe("eval_rewards/accuracies"), table(tmp_path / "some", 3))
    check_training_metrics(recipe(), table(tmp_path / "unneeded", 0))


def test_a_bucket_of_margins_without_pairs_measures_nothing(tmp_path: Path) -> None:
    some = table(tmp_path / "some", 3)
    check_training_metrics(recipe("eval_rewards/accuracies/margin_1-2"), some)
    with pytest.raises(TooFewPairsError, match="margin_2-4: no held-out pair has such a margin"):
        check_training_metrics(recipe("eval_rewards/accuracies/margin_2-4"), some)


def test_drift_is_not_measured_without_a_reference(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="eval_logps/chosen_drift is measured against a reference, and the objective"):
        check_training_metrics(recipe("eval_logps/chosen_drift", "simpo"), table(tmp_path / "some", 3))


def test_a_comparison_names_its_own_setting(tmp_path: Path) -> None:
    with pytest.raises(TooFewPairsError, match=r"^tune\.metric needs held-out pairs: "):
        require_held_out(recipe(), table(tmp_path / "none", 0), {"tune.metric": "eval_rewards/accuracies"})


def test_a_recipe_that_holds_out_nothing_and_needs_it_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValueError, match=f"{BEST} needs held-out pairs, and data.heldout holds out none: give it a"):
        recipe("eval_rewards/accuracies", fraction=0)
