import json
from pathlib import Path

import pytest

from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.errors import RecipeError
from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.recipe.file import describe_settings, load_recipe
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.search.space import Space, starting_points
from tests.recipe.complaints import complaint

RECIPES = sorted((Path(__file__).parents[2] / "jobs" / "recipes").glob("*.yaml"))
PAPER = {
    "llama3-8b-ultrafeedback": (1e-6, 1),
    "mistral-7b-ultrafeedback": (2e-7, 1),
    "qwen2.5-7b-ultrafeedback": (8e-7, 1),
    "llama3-8b-argilla-7k": (1e-6, 2),
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text("model: {path: some/model}\ndata: {source: {path: pairs.jsonl}}\n")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    assert isinstance(load_recipe(str(path)), Recipe)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_has_a_space_that_holds_its_starting_points(path: Path) -> None:
    recipe = load_recipe(str(path))
    own, *others = starting_points(recipe, Space.of(recipe))
    assert own["train.optimizer.learning_rate"] == recipe.train.optimizer.learning_rate
    assert len(others) == len(recipe.tune.first_trials)


@pytest.mark.parametrize("name", PAPER)
def test_the_large_recipes_have_the_papers_settings_and_say_that_they_were_not_run(name: str) -> None:
    path = next(path for path in RECIPES if path.stem == name)
    recipe = load_recipe(str(path))
    learning_rate, epochs = PAPER[name]
    assert recipe.train.optimizer.learning_rate == learning_rate
    assert recipe.train.num_train_epochs == epochs
    assert (recipe.train.global_batch_size, recipe.objective.model_dump()) == (128, {"beta": 0.01})
    assert (recipe.data.max_prompt_length, recipe.data.max_length) == (512, 1024)
    assert "Not run:" in path.read_text()


def test_a_number_in_scientific_notation_is_a_number(small: Path) -> None:
    small.write_text(small.read_text() + "train: {optimizer: {learning_rate: 5e-7}}\n")
    assert load_recipe(str(small)).train.optimizer.learning_rate == 5e-7
    assert load_recipe(str(small), ["train.optimizer.learning_rate=2E-6"]).train.optimizer.learning_rate == 2e-6


def test_an_override_reaches_a_setting_that_the_file_does_not_mention(small: Path) -> None:
    recipe = load_recipe(str(small), ["objective.name=simpo", "objective.beta=2.5", "output.name=other"])
    assert recipe.objective == SimPO(beta=2.5)
    assert recipe.output.name == "other"


def test_a_run_is_named_after_its_recipe(small: Path) -> None:
    assert load_recipe(str(small)).output.name == "small"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("trian.seed=1", "trian is unknown; did you mean train?"),
        ("train.optimizer.lerning_rate=1", "train.optimizer.lerning_rate is unknown; did you mean learning_rate?"),
        ("objective={name: dpo, bta: 0.1}", "objective.bta is unknown; did you mean beta or tau?"),
        ("objective={name: dop}", "objective: unknown objective 'dop'; did you mean dpop or dpo?"),
        ("objective={name: dpo, beta: -1}", "objective.beta: -1: give more than 0"),
        ("train.optimizer.learning_rate=yes", "train.optimizer.learning_rate: True: true or false is no value"),
        ("train.optimizer.learning_rate=.nan", "train.optimizer.learning_rate: nan: give a number that is finite"),
        (
            "metrics={reward_margn: {model: m}}",
            "metrics: unknown metric 'reward_margn'; did you mean reward_margin?",
        ),
        ("metrics={reward_margin: {modl: m}}", "metrics.reward_margin.model is missing; it has no default"),
        ("metrics={ches: {modl: m}}", "metrics.ches.modl is unknown; did you mean model?"),
        ("metrics={perplexity: {model: 3}}", "metrics.perplexity.model: 3: give a text"),
        ("metrics=[ches]", "metrics: ['ches']: write {metric: {its settings}, ...}"),
        ("curriculum.difficulty=chess", "curriculum.difficulty: unknown metric 'chess'; did you mean ches?"),
        (
            "curriculum.difficulty=reward_margin",
            "curriculum.difficulty: reward_margin needs to know model: write metrics: {reward_margin: {model: ...}}",
        ),
        ("metrics={dcrm: }", "metrics.dcrm: reward_margin needs to know model: write metrics: {reward_margin: {model"),
        ("train.global_batch_size=0", "train.global_batch_size: 0: give 1 or more"),
        (
            "curriculum.threshold={value: 1, hard_count: 3}",
            "curriculum.threshold: value and hard_count exclude each other",
        ),
        (
            "curriculum.difficulty=rating",
            "curriculum.difficulty: unknown metric 'rating'; did you mean ",
        ),
        (
            "data.select=[{keep: easiest, metric: chess, fraction: 0.5}]",
            "data.select: unknown metric 'chess'; did you mean ches?",
        ),
        (
            "data.select=[{keep: easiest, metric: reward_margin, fraction: 0.5}]",
            "data.select: reward_margin needs to know model: write metrics: {reward_margin: {model: ...}}",
        ),
        (
            "curriculum.difficulty=prompt_length",
            "curriculum.threshold 0.5 is a rating margin and says nothing about prompt_length: give threshold.hard",
        ),
        (
            "data.select=[{keep: easiest, fracton: 0.5}]",
            "data.select.fracton is unknown; did you mean fraction?",
        ),
        ("data.select=[{keep: easiest, fraction: 0.5, count: 3}]", "data.select: give fraction or count, and not both"),
        ("data.select={keep: easiest}", "data.select: write a list of rules"),
        ("data.pair.rule=min_max", "data.pair.rule: 'min_max': unknown rule; did you mean max_min?"),
        ("data.pair.margins=[1]", "data.pair: rule margin_controlled and margins belong together"),
        ("data.pair.rule=margin_controlled", "data.pair: rule margin_controlled and margins belong together"),
        ("data.pair={rule: max_min, epsilon: 2}", "data.pair: epsilon belongs to rule dcrm"),
        (
            "data={source: {path: a, format: hh_rlhf}, pair: {rule: max_min}}",
            "data.pair.rule max_min chooses among several answers, and format hh_rlhf holds pairs: leave it out",
        ),
        ("data.pair.flip=1.5", "data.pair.flip: 1.5: give 1 or less"),
        ("curriculum={mode: router_shuffled, order: ascending}", "curriculum: mode router_shuffled draws at random"),
        ("curriculum.sft_weight=0", "curriculum.sft_weight 0 leaves the hard stage nothing to learn"),
        ("data.max_prompt_length=4096", "data: max_prompt_length 4096 exceeds max_length 1024"),
        ("deepspeed.offload_parameters=true", "deepspeed: offload_parameters needs zero_stage 3, not 2"),
        ("data.source.format=ultrafeedbak", "data.source.format: 'ultrafeedbak': unknown format; did you mean ultra"),
        ("output.name=../other", "output.name: '../other': it names a folder: use letters, digits"),
        (
            "tune={space: {objective.beta: {logunifrom: [0.1, 1]}}}",
            "tune.space: objective.beta: unknown kind of range 'logunifrom'; did you mean loguniform?",
        ),
        (
            "tune={space: {objective.beta: {uniform: [1, 0.1]}}}",
            "tune.space: objective.beta: uniform [1, 0.1]: it is empty: low must be below high",
        ),
        ("tune.metric=loss", "tune.metric: 'loss' is not measured on held-out pairs; did you mean eval_loss?"),
        (
            "tune.metric=[accuracy, accuracy]",
            "tune.metric: ['accuracy', 'accuracy']: give one metric, or two different",
        ),
        ("tune.metric=[accuracy, chosen_drift]", "tune: two metrics have no order to stop trials by"),
        ("tune.guard=chosen_drift > -20", "tune.guard: 'chosen_drift > -20': write a measure, >= or <=, and a number"),
        ("tune.sampler=tpa", "tune.sampler: 'tpa': choose 'tpe', 'random', 'gp', 'cmaes' or 'grid'"),
        ("tune.num_samples=0", "tune.num_samples: 0: give 1 or more"),
        ("tune.early_stopping.prunner=none", "tune.early_stopping.prunner is unknown; did you mean pruner?"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_a_remedy(small: Path, override: str, expected: str) -> None:
    assert complaint(small, override).startswith(expected)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/studies",
        "postgresql+psycopg://me:sec/ret@host:5432/studies",
        "postgresql://host/studies?user=me&password=secret",
        "mysql://me@host/studies?passwd=secret",
    ],
)
def test_a_password_in_a_storage_url_is_refused(small: Path, url: str) -> None:
    message = complaint(small, f"tune.storage={url}")
    assert "a password in the URL would be written into files: leave it to PGPASSWORD or ~/.my.cnf" in message


@pytest.mark.parametrize(
    "url",
    ["postgresql://me@host:5432/studies", "postgresql://host:5432/studies?sslmode=require", "sqlite:////tmp/a@b:c.db"],
)
def test_a_storage_url_without_a_password_is_taken(small: Path, url: str) -> None:
    assert load_recipe(str(small), [f"tune.storage={url}"]).tune.storage == url


def test_a_guard_is_written_down_as_it_is_meant(small: Path) -> None:
    assert (
        load_recipe(str(small), ["tune.guard=chosen_drift>=-20.125"]).tune.guard == "eval_logps/chosen_drift >= -20.125"
    )


def test_rungs_multiply_and_without_a_pruner_there_is_one(small: Path) -> None:
    def budgets(*overrides: str) -> tuple[int, ...]:
        return load_recipe(str(small), overrides).tune.early_stopping.budgets

    assert budgets("tune.early_stopping={rungs: 3, reduction_factor: 3}") == (1, 3, 9)
    assert budgets("tune.early_stopping={rungs: 4, reduction_factor: 2}") == (1, 2, 4, 8)
    assert budgets("tune.early_stopping.pruner=none") == (1,)


def test_metrics_are_written_down_and_read_again_with_all_their_settings(small: Path) -> None:
    recipe = load_recipe(str(small), ["metrics={reward_margin: {model: m}, ches: }"])
    assert recipe.to_dict()["metrics"]["ches"] == {"model": None, "length_normalised": True}
    assert Recipe.model_validate(recipe.to_dict()) == recipe


def test_how_a_search_is_made_does_not_make_another_training(small: Path) -> None:
    plain, searched = (load_recipe(str(small), overrides) for overrides in ([], ["tune.num_samples=3"]))
    assert plain.training_identity() == searched.training_identity()


def test_a_reference_that_no_objective_would_read_is_refused(small: Path) -> None:
    assert "model.reference 'big' would never be read" in complaint(
        small, "objective.name=simpo", "model.reference=big"
    )


def test_a_word_that_is_no_override_is_refused(small: Path) -> None:
    with pytest.raises(RecipeError, match=r"--fast: not an override; write dotted\.key=value"):
        load_recipe(str(small), ["--fast"])


def test_an_override_that_is_no_yaml_is_refused(small: Path) -> None:
    with pytest.raises(RecipeError, match=r"model\.path=\[a: not YAML: "):
        load_recipe(str(small), ["model.path=[a"])


def test_a_missing_file_and_a_broken_one_are_named(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("model: [")
    assert complaint(broken).startswith(f"{broken}, line 1, column 9: not YAML: the text ends")
    broken.write_text("model: {path: a}\nmodel: {path: b}\n")
    assert complaint(broken) == "line 2: model is given twice; keep one"
    broken.write_text("")
    assert complaint(broken).startswith("holds no settings")


def test_a_resolved_recipe_is_read_back_as_it_was(small: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(small), ["objective.name=ipo", "objective.tau=0.5"])
    written = tmp_path / "again.yaml"
    written.write_text(json.dumps(recipe.to_dict()))
    assert load_recipe(str(written)) == recipe


def test_workers_paths_and_logging_do_not_make_another_training(small: Path) -> None:
    def name(*overrides: str) -> str:
        return fingerprint(load_recipe(str(small), overrides).training_identity())

    same = ["cluster.num_workers=8", "output.trackers=[wandb]", "train.checkpoints.every_steps=5", "train.max_steps=3"]
    same += ["train.stop_after=4h"]
    assert {name(override) for override in same} == {name()}
    other = ["objective.beta=0.2", "train.seed=1", "curriculum.thin=2", "deepspeed.zero_stage=3", "model.dtype=float32"]
    assert len({name(), *(name(override) for override in other)}) == 1 + len(other)


def test_a_pass_may_be_measured_in_tokens_where_rows_are_packed(small: Path) -> None:
    tokens = "train.per_device_train_batch_size.tokens=8192"
    recipe = load_recipe(str(small), [tokens, "model.packing=auto"])
    assert recipe.train.per_device_train_batch_size == TokenBudget(tokens=8192)
    assert recipe.to_dict()["train"]["per_device_train_batch_size"] == {"tokens": 8192}
    assert complaint(small, tokens, "model.packing=off") == (
        "train.per_device_train_batch_size counts tokens, for which rows must be packed: give a number of pairs, or "
        "model.packing auto or on"
    )
    zero = complaint(small, "train.per_device_train_batch_size={tokens: 0}", "model.packing=auto")
    assert zero == "train.per_device_train_batch_size.tokens: 0: give 1 or more"


def test_help_lists_every_setting_of_every_objective() -> None:
    text = describe_settings()
    assert "train.optimizer.learning_rate = 1e-06" in text
    for name, objective in OBJECTIVES.items():
        for setting in objective.model_fields:
            assert f"objective.{setting} = " in text
            assert f"(objective {name})" in text
    for name, metric in METRICS.items():
        assert all(f"metrics.{name}.{setting} = " in text for setting in metric.model_fields)
    assert "None\n    \n" not in text


def test_every_setting_has_a_line_of_explanation() -> None:
    lines = describe_settings().splitlines()
    bare = [setting for setting, text in zip(lines[::2], lines[1::2], strict=True) if not text.strip()]
    assert bare == []


def test_a_hyperparameter_of_another_objective_is_refused_with_its_owners(small: Path) -> None:
    said = complaint(small, "objective={name: dpo, gamma_beta_ratio: 0.1}")
    assert said == "objective.gamma_beta_ratio is unknown; it belongs to simpo, gamma_simpo, alpha_dpo and alpha_po"
    said = complaint(small, "objective={name: ipo, beta: 0.1}")
    assert said == f"objective.beta is unknown; it belongs to dpo, cdpo, robust_dpo and {len(BETA) - 3} others"


BETA = [name for name, kind in OBJECTIVES.items() if "beta" in kind.model_fields]


def test_a_refused_password_is_not_repeated(small: Path) -> None:
    said = complaint(small, "tune.storage=postgresql://me:hunter2@host/studies")
    assert "hunter2" not in said
    assert said.startswith("tune.storage: ")
