"""Recipes whose workers would share rows and cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.recipe.file import load_recipe
from tests.recipe.complaints import complaint


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("cluster.num_workers=3", "does not divide cluster.num_workers 3: give 2 of them"),
        ("cluster.num_workers=1", "does not divide cluster.num_workers 1: give 2 of them"),
        ("cluster.num_workers=[2, 4]", "needs one number of workers, and cluster.num_workers is any of 2 to 4: give 4"),
        ("model.packing=off", "cuts packed rows, and model.packing is off: set it to auto or on"),
    ],
)
def test_rows_that_workers_cannot_share_are_refused(tmp_path: Path, override: str, expected: str) -> None:
    small = tmp_path / "small.yaml"
    small.write_text("model: {path: some/model}\ndata: {source: {path: pairs.jsonl}}\n")
    assert complaint(small, "deepspeed.sequence_parallel=2", override) == f"deepspeed.sequence_parallel 2 {expected}"


def test_how_many_share_a_row_makes_no_other_training(tmp_path: Path) -> None:
    """As with the number of workers, the last bits of sums differ and nothing else."""
    small = tmp_path / "small.yaml"
    small.write_text("model: {path: some/model}\ndata: {source: {path: pairs.jsonl}}\n")
    alone, shared = (load_recipe(str(small), [f"deepspeed.sequence_parallel={ranks}"]) for ranks in (1, 2))
    assert shared.training_identity() == alone.training_identity()
