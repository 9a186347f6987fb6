"""What an arm is, and what is refused before Ray starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.comparison.arms import all_arms, check_arms, windows_left_out
from mixdpo_ray.comparison.output import CompareOutput
from mixdpo_ray.recipe.file import load_recipe
from tests.recipe.complaints import complaint

RECIPES = Path(__file__).parents[2] / "jobs" / "recipes"
SMALL = """
model: {path: some/model}
data: {source: {path: pairs.jsonl}}
compare:
  seeds: [3, 5]
  arms:
    own: {}
    loud: {objective.beta: 0.5}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_every_arm_is_the_recipe_with_its_settings_and_each_seed(small: Path) -> None:
    arms = all_arms(load_recipe(str(small)))
    assert [(arm.name, arm.recipe.train.seed, arm.recipe.curriculum.seed) for arm in arms] == [
        ("own", 3, 3), ("loud", 3, 3), ("own", 5, 5), ("loud", 5, 5),
    ]  # fmt: skip
    assert [arm.recipe.objective.model_dump()["beta"] for arm in arms] == [0.1, 0.5, 0.1, 0.5]
    assert len({arm.folder for arm in arms}) == 4
    assert [arm.labels for arm in arms[:2]] == [
        {"arm": "own", "seed": 3},
        {"arm": "loud", "seed": 3, "objective.beta": 0.5},
    ]


def test_names_that_differ_in_a_sign_alone_have_folders_of_their_own(small: Path) -> None:
    recipe = load_recipe(str(small), ["compare.arms={'dpo, sorted': {}, 'dpo. sorted': {}}", "compare.seeds=[0]"])
    first, second = all_arms(recipe)
    assert first.folder != second.folder


def test_a_playground_stands_for_its_name_in_paths() -> None:
    recipe = load_recipe(str(RECIPES / "playground-compare.yaml"), ["output.storage_path=out"])
    arm = all_arms(recipe)[-1]
    assert arm.recipe.model.path == "out/worlds/seed-4/base"
    assert arm.recipe.data.source.path == "out/worlds/seed-4/pairs.jsonl"


def test_what_a_thinned_curriculum_left_out_is_told_by_arm(small: Path) -> None:
    def told(*overrides: str) -> str | None:
        return windows_left_out(load_recipe(str(small), overrides))

    always = " (a stage's first and last always)."
    assert told() is None
    assert told("curriculum.thin=4") == f"curriculum.thin left windows out: every arm trained 1 of 4{always}"
    assert (
        told("compare.arms.loud={curriculum.thin: 2}")
        == f"curriculum.thin left windows out: loud trained 1 of 2{always}"
    )


def test_the_closing_lines_tell_what_was_left_out_and_count_only_what_is_run(small: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(small), ["curriculum.thin=4", "compare.untrained=start"])
    lines = CompareOutput(recipe, str(tmp_path)).describe().splitlines()
    assert lines[0].startswith(f"{recipe.output.name}: 0 of {len(all_arms(recipe))} runs ended, ")
    assert windows_left_out(recipe) in lines


def test_every_shipped_comparison_can_be_made() -> None:
    shipped = [recipe for path in RECIPES.glob("*.yaml") if (recipe := load_recipe(str(path))).compare.arms]
    assert shipped
    for recipe in shipped:
        check_arms(recipe)


def test_the_paper_s_models_can_be_compared_too() -> None:
    shuffled = "{curriculum.mode: sorted_dpo, curriculum.order: shuffled}"
    arms = f"compare.arms={{mixdpo: {{}}, dpo: {shuffled}, simpo: {{objective.name: simpo}}}}"
    recipe = load_recipe(str(RECIPES / "llama3-8b-ultrafeedback.yaml"), [arms])
    check_arms(recipe)
    assert recipe.compare.measure.name == "eval_rewards/accuracies"


MISTAKES: list[tuple[str, Any]] = [
    ("compare.arms={a: {objectve.beta: 1}, b: {}}", "compare.arms.a: objectve is unknown; did you mean objective?"),
    (
        "compare.arms={a: {objective.bta: 1}, b: {}}",
        "compare.arms.a: objective.bta is unknown; did you mean beta or",
    ),
    ("compare.arms={a: {objective.beta: -1}, b: {}}", "compare.arms.a: objective.beta: -1: give more"),
    ("compare.arms={a: {objective.name: dop}, b: {}}", "compare.arms.a: objective: unknown objective 'dop'"),
    ("compare.arms={a: {train.seed: 1}, b: {}}", "compare.arms.a: train.seed cannot be set by an arm: compare.seeds"),
    ("compare.arms={a: {output.name: x}, b: {}}", "compare.arms.a: output.name cannot be set by an arm: all arms lie"),
    ("compare.arms={a: 3}", "compare.arms.a: 3: give settings, {key: value}"),
    ("compare.arms={}", "compare.arms is empty: name two arms or more"),
    ("compare.arms={a: {}}", "compare.arms names 'a' alone: a comparison needs two"),
    ("compare.arms={a/b: {}, c: {}}", "compare: arm 'a/b': a name begins with a letter and holds no slash"),
    ("compare.against=lod", "compare: against 'lod' is no arm; did you mean loud?"),
    ("compare.untrained=own", "compare: untrained 'own' is the name of an arm that is trained"),
    ("compare.seeds=[]", "compare.seeds: []: give 1 or more of them"),
    ("compare.seeds=[1, 1]", "compare: seeds [1, 1] name one twice"),
    ("compare.metric=quality", "compare: metric quality is known in a playground alone: give compare.playground"),
    ("compare.metric=eval_loss", "compare.metric eval_loss: its scale moves with objective.beta"),
    (
        "compare.metric=loss",
        "compare.metric: 'loss' is not measured on held-out pairs; did you mean eval_loss?",
    ),
    ("compare.playground={base_steps: 3}", "model.path 'some/model', data.source.path 'pairs.jsonl': both begin with"),
    ("compare.playground={base_stps: 3}", "compare.playground.base_stps is unknown; did you mean base_steps?"),
    ("compare.playground={seed: 3}", "compare: playground.seed would be overwritten: compare.seeds says"),
    (
        "model.path=<playground>/base",
        "model.path '<playground>/base', data.source.path 'pairs.jsonl': both begin with <playground>",
    ),
    ("train.stop_after=4h", "train.stop_after is of one training: a comparison keeps what it has"),
    ("train.max_steps=3", "train.max_steps would cut the curriculum of every arm"),
    ("data.heldout.fraction=0", "data.heldout holds out no pairs, and arms are compared on them"),
]


@pytest.mark.parametrize(("override", "expected"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_is_one_line_before_ray_starts(small: Path, override: str, expected: str) -> None:
    said = complaint(small, override, check=check_arms)
    assert said.startswith(expected), said
    assert "\n" not in said


def test_a_playground_in_an_object_store_is_refused() -> None:
    said = complaint(RECIPES / "playground-compare.yaml", "output.storage_path=s3://b/x", check=check_arms)
    assert said == "output.storage_path s3://b/x: name a local folder, playgrounds are made there"
