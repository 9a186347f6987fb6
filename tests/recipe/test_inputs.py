"""Mistakes in a recipe's own paths and pairs: all of them at once, before Ray starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.playground.sample import write_pairs
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.inputs import input_problems, refuse_wrong_inputs
from tests.recipe.complaints import complaint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe without a mistake."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_pairs(tmp_path / "pairs.jsonl", 4)
    configure(tmp_path / "base", "llama")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: {path: ./base}\ndata: {source: {path: pairs.jsonl}, max_prompt_length: 16, max_length: 64}\n"
    )
    return path


def configure(folder: Path, kind: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "max_position_embeddings": 64}))


def problems(recipe: Path, *overrides: str) -> list[str]:
    return input_problems(load_recipe(str(recipe), overrides))


def test_nothing_is_said_of_a_recipe_without_a_mistake(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refuse_wrong_inputs(load_recipe(str(recipe)))
    assert capsys.readouterr() == ("", "")


def test_every_mistake_in_paths_and_columns_is_a_line_of_one_refusal(recipe: Path) -> None:
    overrides = (
        "model.path=./bas",
        "model.chat_template=none.jinja",
        "data.source.columns={prompt: promt}",
        "data.heldout.source={path: ./pears.jsonl}",
    )
    with pytest.raises(RecipeError) as caught:
        refuse_wrong_inputs(load_recipe(str(recipe), overrides), load_recipe(str(recipe), overrides))
    lines = str(caught.value).splitlines()
    here = recipe.parent
    assert lines[0] == f"model.path './bas' is no folder; correct the path ({here}/bas), or give a Hugging Face name"
    assert lines[1].startswith("model.chat_template 'none.jinja' is neither a Jinja template nor a file")
    assert "data.source.columns names promt (for prompt)" in lines[2]
    assert lines[3].startswith(f"data.heldout.source.path ./pears.jsonl: no file there ({here}/pears.jsonl) that ends ")
    assert lines[3].endswith("; did you mean pairs.jsonl?")
    assert len(lines) == 4


def test_columns_of_a_held_out_source_are_told_by_its_own_settings_and_file(recipe: Path) -> None:
    (recipe.parent / "gap.jsonl").write_text('{"prompt": "a", "chosen": "b", "rejected": "c", "gap": 1}\n')
    assert problems(recipe, "data.heldout.source.path=gap.jsonl") == [
        "data.heldout.source: format plain has no ratings here: map their columns; gap.jsonl has prompt, chosen, "
        'rejected, gap: our name first, as in "data.heldout.source.columns={margin: gap}"'
    ]


def test_a_folder_that_is_no_model_is_refused_with_the_model_inside_it(recipe: Path) -> None:
    (recipe.parent / "run").mkdir()
    assert problems(recipe, "model.path=./run") == [
        "model.path ./run has no config.json, so that it is no model: give the folder that holds it"
    ]
    configure(recipe.parent / "run" / "model", "llama")
    assert problems(recipe, "model.path=./run")[0].endswith("did you mean run/model?")


def test_the_model_of_a_metric_that_orders_pairs_is_looked_at_too(recipe: Path) -> None:
    used = ("metrics.reward_margin.model=./no", "curriculum.difficulty=reward_margin", "curriculum.threshold.value=1")
    assert problems(recipe, used[0]) == []
    assert problems(recipe, *used)[0].startswith("metrics.reward_margin.model './no' is no folder")


def test_models_that_workers_load_may_lie_on_another_cluster_and_data_may_not(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("model.path=/far/base", "model.reference=/far/base", "data.source.path=/far/pairs.jsonl")
    assert len(problems(recipe, *overrides)) == 3
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert [line.split()[0] for line in problems(recipe, *overrides)] == ["model.path", "data.source.path"]
    assert len(problems(recipe, *overrides, "model.tokenizer=owner/name")) == 1


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "model.lora={}",
            "model.lora needs peft: pip install 'mixdpo_ray[lora]', or leave it out to train all weights",
        ),
        (
            "model.kernels=liger",
            "model.kernels liger needs liger_kernel: pip install 'mixdpo_ray[liger]', or set it to",
        ),
        (
            "output.trackers=[tensorboard]",
            "output.trackers.tensorboard needs tensorboard: pip install 'mixdpo_ray[tensorboard]', or leave it out",
        ),
        (
            "output.trackers.mlflow.uri=sqlite:///a.db",
            "output.trackers.mlflow needs mlflow: pip install 'mixdpo_ray[mlflow]', or leave it out",
        ),
    ],
)
def test_a_library_that_training_lacks_is_refused_with_its_extra_where_this_machine_trains(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, override: str, expected: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    (said,) = problems(recipe, override)
    assert said.startswith(expected)
    assert input_problems(load_recipe(str(recipe), [override]), trains=False) == []
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert problems(recipe, override) == []


@pytest.mark.parametrize(
    ("overrides", "warned"),
    [
        (["train.optimizer.learning_rate=1e6"], True),
        (["train.optimizer.learning_rate=0.02"], True),
        (["train.optimizer.learning_rate=0.01"], False),
        (["train.optimizer.learning_rate=0.02", "model.lora={}"], False),
    ],
)
def test_a_rate_that_nobody_can_mean_is_doubted(
    recipe: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], warned: bool
) -> None:
    refuse_wrong_inputs(load_recipe(str(recipe), overrides))
    assert ("is far more than models learn by" in capsys.readouterr().err) == warned


def test_pairs_longer_than_a_models_positions_are_refused_or_doubted(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = load_recipe(str(recipe), ["data.max_length=128"])
    refuse_wrong_inputs(longer, longer)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning: data.max_length 128 is more than the 64 tokens that ./base was made for")
    configure(recipe.parent / "base", "opt")
    assert "has positions for" in complaint(recipe, "data.max_length=128", check=refuse_wrong_inputs)


@pytest.mark.usefixtures("recipe")
def test_a_playground_that_nobody_has_made_yet_is_said_with_what_makes_it() -> None:
    assert problems(ROOT / "jobs" / "recipes" / "playground.yaml") == [
        "model.path outputs/playground/world/base and data.source.path outputs/playground/world/pairs.jsonl: nothing "
        "is there yet; first run make demo (jobs/playground.py), which makes it"
    ]
    assert problems(ROOT / "jobs" / "recipes" / "playground-compare.yaml") == [
        "model.path <playground>/base stands for the playgrounds that jobs/compare.py makes: only that can use it"
    ]
