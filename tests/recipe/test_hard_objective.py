"""What curriculum.hard_objective may be, and that a recipe without one is what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.objectives.todo import TODO
from mixdpo_ray.recipe.file import describe_settings, load_recipe
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.search.space import Space
from tests.recipe.complaints import complaint

HARD = "curriculum.hard_objective"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("model: {path: some/model}\ndata: {source: {path: pairs.jsonl}}\n")
    return path


def read(path: Path, *overrides: str) -> Recipe:
    return load_recipe(str(path), overrides)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([f"{HARD}=none"], f"{HARD}: 'none': to leave hard pairs out, write curriculum.mode discard_hard"),
        ([f"{HARD}=tdo"], f"{HARD}: 'tdo': unknown objective 'tdo'; did you mean todo or kto?"),
        ([f"{HARD}={{name: kto}}"], f"{HARD}: kto reads the whole step, and only its easy pairs: choose an objective"),
        ([f"{HARD}={{name: odpo}}"], f"{HARD}: odpo has no loss for ties, which hard pairs may be: choose another"),
        ([f"{HARD}={{name: cdpo, label_smoothing: curated}}"], f"{HARD}: label_smoothing curated is estimated for all"),
        (
            [f"{HARD}=todo", "curriculum.mode=sorted_dpo"],
            "curriculum: hard_objective todo gets no pairs in mode sorted_dpo: leave it out",
        ),
        (
            [f"{HARD}=todo", "curriculum.sft_norm=example_sum"],
            "curriculum.sft_weight and sft_norm are of SFT, and hard_objective todo trains the hard pairs: leave them",
        ),
        (
            [f"{HARD}=simpo", "objective={name: simpo}", "model.reference=other"],
            "model.reference 'other' would never be read: objective simpo has no reference",
        ),
    ],
)
def test_what_cannot_train_hard_pairs_is_refused(small: Path, overrides: list[str], expected: str) -> None:
    assert complaint(small, *overrides).startswith(expected)


def test_a_reference_is_read_where_hard_pairs_alone_need_one(small: Path) -> None:
    recipe = read(small, f"{HARD}=todo", "objective={name: simpo}", "model.reference=other")
    assert recipe.needs_reference
    assert not read(small, f"{HARD}=simpo", "objective={name: simpo}").needs_reference
    assert read(small, f"{HARD}=ld_dpo").needs_tokens


@pytest.mark.parametrize("sft", ["sft", "{name: sft}", "null"])
def test_sft_on_chosen_answers_is_the_default_under_any_of_its_names(small: Path, sft: str) -> None:
    assert read(small, f"{HARD}={sft}") == read(small)


def test_help_says_what_it_is_and_that_there_is_none_by_default() -> None:
    assert f"\n{HARD}.name = None\n    Objective of hard pairs instead of SFT" in describe_settings()


def test_an_identity_knows_it_only_where_it_is_given(small: Path) -> None:
    plain, todo = read(small), read(small, f"{HARD}={{name: todo, alpha: 0.3}}")
    assert "hard_objective" not in plain.training_identity()["curriculum"]
    assert todo.training_identity()["curriculum"]["hard_objective"] == {"name": "todo", "beta": 0.1, "alpha": 0.3}
    assert fingerprint(plain.training_identity()) != fingerprint(todo.training_identity())
    assert Recipe.model_validate(todo.to_dict()) == todo


def test_a_search_chooses_among_them_by_name(small: Path) -> None:
    space = f"tune.space={{{HARD}: {{choice: [sft, todo, dpo_d]}}}}"
    assert Space.of(read(small, space)).settings == (HARD,)
    assert read(small, f"{HARD}.name=todo", f"{HARD}.alpha=0.2").curriculum.hard_objective == TODO(alpha=0.2)
