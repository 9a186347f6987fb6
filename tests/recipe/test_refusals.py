"""What a person meant is in the line that refuses what was written, and no word of the libraries that read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.file import load_recipe
from tests.recipe.complaints import complaint


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("model: {path: some/model}\ndata: {source: {path: pairs.jsonl}}\n")
    return path


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tune.metric=acuracy", "tune.metric: 'acuracy' is not measured on held-out pairs; did you mean "),
        (
            "train.checkpoints.keep_best=eval_rewards/accuracy",
            "train.checkpoints.keep_best: 'eval_rewards/accuracy' is not measured on held-out "
            "pairs; did you mean eval_rewards/accuracies?",
        ),
        ("train.checkpoints.keep_best=foo", "train.checkpoints.keep_best: 'foo' is not measured on held-out"),
        ("tune.guard=chosen_drfit >= -20", "tune.guard: 'chosen_drfit >= -20': 'chosen_drfit' is not measured on held"),
        (
            "train.checkpoints.keep_best=eval_code_loss",
            "train.checkpoints.keep_best eval_code_loss: data.heldout.sets has no set 'code'; it names none",
        ),
        ("data.heldout.sets={a/b: {path: p}}", "data.heldout.sets: 'a/b' is part of metrics' names: use letters"),
        ("data.heldout.sets={code: {path: ''}}", "data.heldout.sets.code: path is missing: name files or a data set"),
        ("data.source={mix: {code: {path: []}}}", "data.source.mix.code: path is missing: name files or a data set"),
        ("compare.metric=qualty", "compare.metric: 'qualty' is not measured on held-out pairs; did you mean"),
    ],
)
def test_a_metric_that_nobody_measures_is_refused_with_the_one_that_was_meant(
    small: Path, override: str, expected: str
) -> None:
    assert complaint(small, override).startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("cluster.num_workers=0", "cluster.num_workers: 0: give 1 or more, or give a list, in [brackets]"),
        ("cluster.num_workers=[0, 2]", "cluster.num_workers.0: 0: give 1 or more"),
        ("cluster.num_workers=[2]", "cluster.num_workers.1 is missing; give one more"),
        (
            "curriculum.thin=0.5",
            "curriculum.thin: 0.5: it is no share, but n where every n-th window is trained: give 2",
        ),
        ("curriculum.thin=1.5", "curriculum.thin: 1.5: give a whole number"),
        (
            "cluster.label_selector={region: 'eu or us'}",
            "cluster.label_selector: region: 'eu or us' selects nothing: write a value, !value, in(a, b) or !in(a, b)",
        ),
        ("cluster.label_selector={region: '!!eu'}", "cluster.label_selector: region: '!!eu' selects nothing"),
        ("cluster.label_selector={'my zone': a}", "cluster.label_selector: 'my zone' is no label: give a name such as"),
        (
            "cluster.accelerator_type='A100, H100'",
            "cluster: accelerator_type 'A100, H100': give one name, such as A100",
        ),
        ("train.stop_after=soon", "train.stop_after: 'soon' is no time: write 4h, 90m, 1h30m, or seconds"),
        ("train.stop_after=0", "train.stop_after: 0: give more than 0"),
        ("train=5", "train: 5: give settings, {key: value}"),
        ("train.num_train_epochs=0.5", "train.num_train_epochs: 0.5: give a whole number"),
        ("data.margin_scale={a: -1}", "data.margin_scale.a: -1: give more than 0"),
        ("data.source.path=[3]", "data.source.path.0: 3: give a text"),
        ("output.name=a/b", "output.name: 'a/b': it names a folder: use letters, digits, '.', '_' and '-', and begin"),
        (
            "curriculum.mode=sortd_dpo",
            "curriculum.mode: 'sortd_dpo': choose 'two_stage', 'router', 'sorted_dpo', 'discard_hard' or "
            "'router_shuffled'; did you mean sorted_dpo?",
        ),
        ("objective.name=dpoo", "objective: unknown objective 'dpoo'; did you mean dpo or rdpo?"),
        ("model.packing=onn", "model.packing: 'onn': give true or false, or choose 'auto'; did you mean on?"),
        ("compare={arms: {a: {}, b: {}}, against: c}", "compare: against 'c' is no arm; known: a, b"),
        (
            "data.heldout.source={path: b, format: plane}",
            "data.heldout.source.format: 'plane': unknown format; did you mean plain?",
        ),
        ("--objective.beta=0.1", "--objective.beta=0.1: leave out the dashes: objective.beta=0.1"),
        ("objective.beta=1e300", "objective.beta: 1e+300: it is too large for a loss in 32-bit numbers"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_plain_words(small: Path, override: str, expected: str) -> None:
    said = complaint(small, override)
    assert said.startswith(expected)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("beta=0.1", "beta is unknown; did you mean objective.beta?"),
        ("learning_rate=1e-6", "learning_rate is unknown; did you mean train.optimizer.learning_rate?"),
        ("train.beta=0.1", "train.beta is unknown; did you mean objective.beta?"),
        ("optimiser=1", "optimiser is unknown; known: model, data, "),
        ("data.source=../my/std.jsonl", "did you mean data.source.path=../my/std.jsonl?"),
        ("model=some/model", "did you mean model.path=some/model?"),
        ("curriculum.threshold=0.5", "did you mean curriculum.threshold.value=0.5?"),
        ("train=5", "train: 5: give settings, {key: value}"),
    ],
)
def test_a_setting_that_stands_elsewhere_is_suggested_by_its_whole_name(
    small: Path, override: str, expected: str
) -> None:
    assert expected in complaint(small, override)


def test_kernels_of_gpus_are_refused_where_none_may_be_used(small: Path) -> None:
    assert complaint(small, "cluster.use_gpu=false", "model.kernels=liger") == (
        "model.kernels liger needs GPUs, and cluster.use_gpu is false: set it to none"
    )
    load_recipe(str(small), ["cluster.use_gpu=true", "model.kernels=liger"])


def test_a_mistake_of_the_file_is_not_looked_for_on_the_command_line(small: Path) -> None:
    small.write_text("model: {path: some/model, kernels: liger}\ndata: {source: {path: pairs.jsonl, format: plane}}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(small), ["data.source.path=others.jsonl", "data.max_length=a"])
    assert str(caught.value).splitlines() == [
        f"{small}: data.source.format: 'plane': unknown format; did you mean plain?",
        "command line: data.max_length: 'a': give a whole number",
    ]
    with pytest.raises(RecipeError, match=r"^command line: model\.kernels liger needs GPUs"):
        load_recipe(str(small), ["data.source.format=plain", "cluster.use_gpu=false"])


def test_a_blank_that_is_missing_after_a_colon_is_told(small: Path) -> None:
    said = complaint(small, "data.source.columns={prompt:question, chosen: good}")
    assert said == "data.source.columns: a blank is missing after a colon: write prompt: question"
    assert complaint(small, "train={seed:1}") == "train: a blank is missing after a colon: write seed: 1"


def test_aliases_that_come_to_billions_of_values_are_refused_at_once(small: Path) -> None:
    layers = [f"l{number}: &l{number} [{', '.join([f'*l{number - 1}'] * 10)}]" for number in range(1, 10)]
    small.write_text("\n".join([small.read_text(), "l0: &l0 [1]", *layers, ""]))
    assert complaint(small) == "line 1: its aliases come to over 100,000 values: write out what is meant"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.select=&a [*a]", "data.select: line 1: its aliases come to over 100,000 values"),
        ("data.select=" + "[" * 3000, "data.select: it is nested too deeply to be read"),
    ],
)
def test_an_override_that_has_no_end_is_refused(small: Path, override: str, expected: str) -> None:
    assert complaint(small, override).startswith(expected)


def test_aliases_as_people_write_them_are_read(small: Path) -> None:
    small.write_text(small.read_text() + "compare: {arms: {a: &own {train.num_train_epochs: 2}, b: *own}}\n")
    assert load_recipe(str(small)).compare.arms["b"] == {"train.num_train_epochs": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model:\n  path: a: b\n",
            "line 2, column 10: not YAML: a second ': ' on the line, or a line that is indented",
        ),
        ("model:\n\tpath: a\n", "line 2, column 1: not YAML: a tab: indent with spaces: path: a"),
        ('model:\n  path: "a\n', 'line 2, column 9: not YAML: a quote is not closed: path: "a'),
        ("model:\n  path: a\n data: 1\n", "line 3, column 2: not YAML: the line is not indented like its neighbours"),
        ("model: {path: a\ndata: {}\n", "line 1, column 8: not YAML: settings in {braces} are not closed, or a comma"),
        ("model:\n  path: a\ndata\n", "line 3, column 1: not YAML: a key without ': ' and a value: data"),
        ("model:\n  path: @a\n", "line 2, column 9: not YAML: a text that begins with a sign stands in quotes: path: "),
    ],
)
def test_a_recipe_that_is_no_yaml_is_one_line_with_its_line_and_column(small: Path, text: str, expected: str) -> None:
    small.write_text(text)
    said = complaint(small).removeprefix(f"{small}, ")
    assert said.startswith(expected)
    assert "\n" not in said


def test_rows_for_sft_need_a_stage_that_trains_them(small: Path) -> None:
    said = complaint(small, "data.sft={source: {path: s.jsonl}}", "curriculum.mode=discard_hard")
    assert said.startswith("data.sft is trained among the hard pairs, and curriculum.mode discard_hard trains none")
