"""Where the policy becomes the reference: steps by arithmetic, and the recipes in which that would never happen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.curriculum.plan import make_plan
from mixdpo_ray.curriculum.refresh import refresh_steps
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe

TWO_EPOCHS: dict[str, Any] = {"epochs": 2, "epoch_order": "curriculum_major"}


def steps_of(easy: int, hard: int, refresh: Any, epochs: int = 1, **curriculum: Any) -> tuple[int, ...]:
    """Two pairs to a step."""
    settings = CurriculumSettings(refresh_reference=refresh, **curriculum)
    mask = np.arange(easy + hard) >= easy
    if settings.order == "ascending":
        mask = mask[::-1].copy()
    return refresh_steps(settings, make_plan(settings, mask, 2, epochs), ~mask)


def test_buckets_are_equal_parts_of_the_easy_stage_and_end_between_steps() -> None:
    assert steps_of(12, 4, {"per_bucket": 3}) == (2, 4)
    assert steps_of(14, 4, {"per_bucket": 3}) == (2, 4), "seven steps: two, two and three"
    assert steps_of(12, 0, {"per_bucket": 2}, mode="sorted_dpo") == (3,)
    assert steps_of(8, 4, {"per_bucket": 2}, mode="router") == (3,)


def test_every_pass_over_the_easy_stage_has_its_buckets() -> None:
    assert steps_of(8, 2, {"per_bucket": 2}, epochs=2) == (2, 4, 6)
    assert steps_of(8, 2, {"per_bucket": 2}, **TWO_EPOCHS) == (2, 5, 7), "after the hard stage, too"


def test_a_stage_refreshes_where_it_compares_pairs_and_is_not_the_first() -> None:
    assert steps_of(8, 4, "per_stage", **TWO_EPOCHS) == (6,)
    assert steps_of(8, 4, "per_stage", order="ascending") == (2,), "the reference of the easy pairs is the tuned model"
    assert steps_of(8, 4, "per_stage") == ()
    assert steps_of(8, 0, "per_stage", mode="discard_hard", **TWO_EPOCHS) == (4,)


def test_without_the_setting_the_reference_stays() -> None:
    assert steps_of(8, 4, None, **TWO_EPOCHS) == ()


def test_more_buckets_than_steps_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"per_bucket 5 cuts the easy stage, which has 4 steps: give at most 4"):
        steps_of(8, 4, {"per_bucket": 5})
    assert steps_of(16, 4, {"per_bucket": 5}, thin=3) == (1, 2, 3), "but where a search has thinned them"


def recipe(folder: Path, *overrides: str) -> Recipe:
    file = folder / "recipe.yaml"
    file.write_text("model: {path: model}\ndata: {source: {path: pairs.jsonl}}\n")
    return load_recipe(str(file), overrides)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["curriculum.refresh_reference=per_stage"], "would never refresh: no stage after the first compares pairs"),
        (["curriculum.refresh_reference=per_stage", "train.num_train_epochs=3"], "mode two_stage, 3 epochs"),
        (["curriculum.refresh_reference=per_stage", "curriculum.mode=router"], "mode router, 1 epochs"),
        (["curriculum.refresh_reference={per_bucket: 3}", "objective={name: simpo}"], "simpo has no reference"),
        (
            ["curriculum.refresh_reference={per_bucket: 3}", "objective={name: selective_tokens}"],
            "those of their tokens",
        ),
        (["curriculum.refresh_reference={per_bucket: 1}"], "2"),
    ],
)
def test_what_would_never_refresh_is_refused_in_the_recipe(tmp_path: Path, overrides: list[str], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        recipe(tmp_path, *overrides)


def test_what_is_off_is_no_part_of_a_training_and_what_is_on_is(tmp_path: Path) -> None:
    assert "refresh_reference" not in recipe(tmp_path).training_identity()["curriculum"]
    one = recipe(tmp_path, "curriculum.refresh_reference={per_bucket: 3}").training_identity()
    assert one["curriculum"]["refresh_reference"] == {"per_bucket": 3}


@pytest.mark.parametrize(
    "overrides",
    [
        ["curriculum.order=ascending"],
        ["curriculum.hard_objective={name: todo}"],
        ["train.num_train_epochs=2", "curriculum.epoch_order=curriculum_major"],
    ],
)
def test_a_stage_that_compares_pairs_after_another_may_refresh(tmp_path: Path, overrides: list[str]) -> None:
    recipe(tmp_path, "curriculum.refresh_reference=per_stage", *overrides)
