"""A space: its parts, what a drawn point makes of a recipe, and spaces that cannot be."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.recipe.ranges import Margins
from mixdpo_ray.search.space import Space, settings_of, starting_points, with_settings
from tests.search.recipes import make_recipe

BOTH = {"objective.name": {"choice": ["dpo", "simpo"]}}
RATE, RATIO = "train.optimizer.learning_rate", "train.schedule.stage2_lr_ratio"
FRACTION, VALUE = "curriculum.threshold.hard_fraction", "curriculum.threshold.value"


def space_of(space: dict[str, Any], **sections: Any) -> Space:
    return Space.of(make_recipe({"space": space}, **sections))


def refusal(space: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        space_of(space, **sections)
    return str(caught.value)


def draws(space: Space, count: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Points, each with what Optuna calls them."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trials = [study.ask() for _ in range(count)]
    return [(space.suggest(trial), trial.params) for trial in trials]


def test_the_default_space_holds_threshold_strength_learning_rate_and_the_sft_stages_share_of_it() -> None:
    """The learning rate's range is a fifth to five times the recipe's own."""
    space = Space.of(make_recipe(train={"optimizer": {"learning_rate": 1e-6}}))
    assert space.settings == (VALUE, "objective.beta", RATE, RATIO)
    assert space.knobs[0].range == Margins(0.5)
    assert [knob.range.corners() for knob in space.knobs[1:]] == [
        (0.005, 0.5),
        (pytest.approx(2e-7), pytest.approx(5e-6)),
        (0.1, 2.0),
    ]


def test_the_default_space_leaves_out_what_the_recipe_does_not_use() -> None:
    """No threshold where nothing is routed, no second stage where there is one; the objective brings its own."""
    recipe = make_recipe(curriculum={"mode": "sorted_dpo"}, objective={"name": "ipo"})
    assert Space.of(recipe).settings == ("objective.tau", RATE)
    router = make_recipe(curriculum={"mode": "router"}, objective={"name": "simpo"})
    assert Space.of(router).settings == (VALUE, "objective.beta", "objective.gamma_beta_ratio", RATE)


def test_a_recipe_that_counts_its_hard_pairs_is_searched_by_their_share() -> None:
    for threshold in ({"hard_fraction": 0.2}, {"hard_count": 50}):
        space = Space.of(make_recipe(curriculum={"threshold": threshold}))
        assert space.settings[0] == FRACTION
        assert space.knobs[0].range.corners() == (0.0, 0.5)


def test_each_objective_of_a_choice_brings_its_own_hyperparameters() -> None:
    space = space_of({**BOTH, RATIO: {"uniform": [0.1, 1]}})
    assert space.conditional
    assert [knob.name for knob in space.walk()] == [
        "objective.name",
        "objective.beta [dpo]",
        "objective.beta [simpo]",
        "objective.gamma_beta_ratio [simpo]",
        RATIO,
    ]
    assert space.settings == ("objective.name", "objective.beta", "objective.gamma_beta_ratio", RATIO)


def test_a_drawn_point_has_the_settings_of_its_own_objective_alone() -> None:
    """DPO's beta lies in 0.005 to 0.5, SimPO's in 1 to 10: neither is ever drawn from the other's range."""
    found = draws(space_of(BOTH), 40)
    assert {point["objective.name"] for point, _ in found} == {"dpo", "simpo"}
    for point, parameters in found:
        if point["objective.name"] == "dpo":
            assert point.keys() == {"objective.name", "objective.beta"}
            assert 0.005 <= point["objective.beta"] <= 0.5
            assert parameters.keys() == {"objective.name", "objective.beta [dpo]"}
        else:
            assert 1 <= point["objective.beta"] <= 10
            assert parameters.keys() == {
                "objective.name",
                "objective.beta [simpo]",
                "objective.gamma_beta_ratio [simpo]",
            }


def test_every_drawn_point_of_both_objectives_makes_a_recipe() -> None:
    recipe = make_recipe({"space": BOTH})
    for point, _ in draws(Space.of(recipe), 20):
        objective = with_settings(recipe, point).objective
        assert isinstance(objective, DPO if point["objective.name"] == "dpo" else SimPO)
        assert objective.model_dump()["beta"] == point["objective.beta"]


def test_a_branch_written_in_braces_is_used_instead_of_an_objectives_own() -> None:
    space = space_of(
        {"objective.name": {"choice": {"dpo": {"objective.beta": {"uniform": [0.2, 0.3]}}, "simpo": None}}}
    )
    assert [knob.name for knob in space.walk()] == ["objective.name", "objective.beta [dpo]"]
    for point, _ in draws(space, 10):
        assert 0.2 <= point.get("objective.beta", 0.2) <= 0.3


def test_another_objective_does_not_inherit_hyperparameters() -> None:
    """DPO's beta of 0.01 would be no SimPO: it comes with its default, 2."""
    recipe = make_recipe(objective={"name": "dpo", "beta": 0.01})
    assert with_settings(recipe, {"objective.name": "simpo"}).objective == SimPO()
    assert with_settings(recipe, {"objective.name": "dpo"}).objective == DPO(beta=0.01)
    assert with_settings(recipe, {"objective.name": "simpo", "objective.beta": 3.0}).objective == SimPO(beta=3)


def test_a_threshold_that_is_set_replaces_the_recipes_own_kind() -> None:
    recipe = make_recipe(curriculum={"threshold": {"value": 0.5, "tie_rule": "le"}})
    threshold = with_settings(recipe, {FRACTION: 0.25}).curriculum.threshold
    assert (threshold.value, threshold.hard_fraction, threshold.tie_rule) == (None, 0.25, "le")


def test_names_of_optuna_and_settings_translate_into_each_other() -> None:
    space = space_of({**BOTH, RATIO: {"uniform": [0.1, 1]}})
    for point, parameters in draws(space, 10):
        assert space.parameters(point) == parameters


def test_what_does_not_lie_in_the_space_is_left_to_be_drawn() -> None:
    """2 lies in SimPO's range and not in DPO's; a ratio of 3 lies in none."""
    space = space_of({**BOTH, RATIO: {"uniform": [0.1, 1]}})
    assert space.parameters({"objective.name": "simpo", "objective.beta": 2.0, RATIO: 3.0}) == {
        "objective.name": "simpo",
        "objective.beta [simpo]": 2.0,
    }
    assert space.parameters({"objective.name": "dpo", "objective.beta": 2.0}) == {"objective.name": "dpo"}
    assert space.parameters({"objective.beta": 2.0}) == {}


def test_a_grid_enumerates_every_point_with_the_branch_of_its_choice() -> None:
    """2 betas of DPO and 3 of SimPO, each with 2 ratios: (2 + 3) x 2 = 10 points and not 2 x 5 x 2."""
    branches = {
        "dpo": {"objective.beta": {"choice": [0.05, 0.1]}},
        "simpo": {"objective.beta": {"integer": [1, 3]}},
    }
    points = space_of({"objective.name": {"choice": branches}, RATIO: {"quantised": [0.5, 1.0, 0.5]}}).points()
    assert len(points) == 10
    assert {(point["objective.name"], point["objective.beta"], point[RATIO]) for point in points} == {
        *(("dpo", beta, ratio) for beta in (0.05, 0.1) for ratio in (0.5, 1.0)),
        *(("simpo", beta, ratio) for beta in (1, 2, 3) for ratio in (0.5, 1.0)),
    }


def test_a_grid_over_a_continuous_range_is_refused_with_its_setting() -> None:
    with pytest.raises(RecipeError, match=rf"grid needs values that can be counted, and {RATE} has infinitely many"):
        space_of({RATIO: {"choice": [0.5, 1.0]}, RATE: {"uniform": [1e-6, 1e-5]}}).points()


def test_corners_under_a_prefix_leave_everything_else_out() -> None:
    space = space_of(
        {FRACTION: {"uniform": [0.0, 0.4]}, "curriculum.mode": {"choice": ["two_stage", "router"]}, **BOTH}
    )
    assert len(list(space.corners())) == 2 * 2 * (2 + 4)
    found = {(point[FRACTION], point["curriculum.mode"]) for point in space.corners("curriculum.")}
    assert found == {(0.0, "two_stage"), (0.0, "router"), (0.4, "two_stage"), (0.4, "router")}


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (
            {"train.optimizer.lerning_rate": {"uniform": [0.1, 1]}},
            "tune.space: train.optimizer.lerning_rate=0.1: train.optimizer.lerning_rate is unknown; did you mean "
            "learning_rate?",
        ),
        ({"trian.seed": {"choice": [1]}}, "tune.space: trian.seed=1: trian is unknown; did you mean train?"),
        ({"objective.bta": {"uniform": [0.1, 1]}}, "objective.bta is unknown; did you mean beta or tau?"),
        ({"objective.name": {"choice": ["dpo", "dop"]}}, "objective: unknown objective 'dop'; did you mean dpop"),
        ({"objective.beta": {"uniform": [0, 1]}}, "objective.beta=0.0: objective.beta: 0.0: give more"),
        ({"objective.beta": {"choice": [0.1, "strong"]}}, "objective.beta=strong: objective.beta: 'strong': give"),
        ({"train.global_batch_size": {"uniform": [8, 64]}}, "train.global_batch_size: 25.8"),
        ({"train.global_batch_size": {"quantised": [8, 10, 0.5]}}, "train.global_batch_size: 8.5: give a whole number"),
        ({"train.global_batch_size": {"loguniform": [1, 8]}}, "train.global_batch_size: 3.2"),
        ({"train.global_batch_size": {"integer": [0, 8]}}, "train.global_batch_size: 0: give 1 or more"),
        ({"train.optimizer.learning_rate": {"choice": [True]}}, "learning_rate: True: true or false is no value"),
        ({FRACTION: {"uniform": [0.5, 2]}}, "curriculum.threshold.hard_fraction=2.0: "),
        (
            {"objective.name": {"choice": {"ipo": {"objective.beta": {"uniform": [0.1, 1]}}}}},
            "tune.space: objective.name=ipo, objective.beta=0.1: objective.beta is unknown",
        ),
    ],
    ids=str,
)
def test_a_range_that_its_setting_cannot_take_is_refused_by_the_recipes_own_types(
    space: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(space)


def test_whole_numbers_may_be_searched_as_integers_or_in_whole_steps() -> None:
    for range_ in ({"integer": [8, 64]}, {"quantised": [8, 64, 8]}, {"choice": [8, 32]}):
        recipe = make_recipe({"space": {"train.global_batch_size": range_}})
        for point, _ in draws(Space.of(recipe), 5):
            assert with_settings(recipe, point).train.global_batch_size == point["train.global_batch_size"]


@pytest.mark.parametrize(
    "setting",
    ["data.max_length", "model.dtype", "cluster.num_workers", "output.name", "tune.seed"],
)
def test_what_all_trials_share_cannot_vary(setting: str) -> None:
    assert f"tune.space.{setting} cannot vary: all trials share one preparation" in refusal({setting: {"choice": [1]}})


def test_the_rank_of_adapters_may_vary_though_the_model_may_not() -> None:
    assert space_of({"model.lora.rank": {"choice": [8, 16]}}, model={"path": "m", "lora": {"rank": 8}}).settings == (
        "model.lora.rank",
    )


def test_margins_are_a_range_of_the_threshold_alone() -> None:
    assert "tune.space.objective.beta: margins is a range for curriculum.threshold.value" in refusal(
        {"objective.beta": {"margins": 0.5}}
    )
    branch = {"curriculum.mode": {"choice": {"router": {VALUE: {"margins": 0.5}}}}}
    assert "outside of branches" in refusal(branch)


def test_what_changes_the_tables_order_must_be_countable() -> None:
    """Each order is a table of its own, prepared before the first trial."""
    message = refusal({"curriculum.seed": {"integer": [1, 9]}})
    assert "tune.space.curriculum.seed changes the order of the prepared table: give a choice" in message
    assert space_of({"curriculum.order": {"choice": ["descending", "ascending"]}}).settings == ("curriculum.order",)


@pytest.mark.parametrize(
    "space",
    [
        {**BOTH, "objective.beta": {"uniform": [0.1, 1]}},
        {"objective.beta": {"uniform": [0.1, 1]}, **BOTH},
        {
            "objective.beta": {"uniform": [0.1, 1]},
            "curriculum.mode": {"choice": {"router": {"objective.name": {"choice": ["dpo"]}}, "two_stage": None}},
        },
        {
            **BOTH,
            "curriculum.mode": {"choice": {"two_stage": {"objective.beta": {"uniform": [1, 2]}}, "router": None}},
        },
        {"objective.name": {"choice": {"dpo": {"objective.name": {"choice": ["simpo"]}}}}},
    ],
    ids=["beneath", "above", "two levels down", "side by side", "under itself"],
)
def test_a_setting_that_would_get_two_values_at_once_is_refused(space: dict[str, Any]) -> None:
    message = refusal(space)
    assert message.startswith("tune.space.objective.")
    assert "also varies under" in message
    assert "write it there, in braces, for each value" in message


def test_the_recipes_own_settings_are_tried_first_and_other_objectives_with_their_defaults() -> None:
    recipe = make_recipe({"space": {**BOTH, RATIO: {"uniform": [0.1, 1]}}}, objective={"name": "dpo", "beta": 0.01})
    assert starting_points(recipe, Space.of(recipe)) == [
        {"objective.name": "dpo", "objective.beta": 0.01, RATIO: 1.0},
        {"objective.name": "simpo", "objective.beta": 2.0, "objective.gamma_beta_ratio": 0.5, RATIO: 1.0},
    ]


def test_the_first_trials_that_a_recipe_names_follow() -> None:
    first = ({"objective.beta": 0.05}, {"objective.beta": 0.2, RATE: 2e-6})
    recipe = make_recipe({"first_trials": first})
    assert starting_points(recipe, Space.of(recipe))[1:] == list(first)


@pytest.mark.parametrize("point", [{"objective.beta": 9.0}, {"train.seed": 1}, {"objective.gamma_beta_ratio": 0.5}])
def test_a_first_trial_outside_of_the_space_is_refused_with_what_the_space_has(point: dict[str, Any]) -> None:
    recipe = make_recipe({"first_trials": [point], "space": {"objective.beta": {"uniform": [0.1, 1]}}})
    ((setting, value),) = point.items()
    with pytest.raises(RecipeError, match=rf"first_trials: {setting}={value} does not lie .* has objective\.beta$"):
        starting_points(recipe, Space.of(recipe))


def test_a_first_trial_with_the_hyperparameter_of_another_choice_is_refused() -> None:
    point = {"objective.name": "dpo", "objective.gamma_beta_ratio": 0.5}
    recipe = make_recipe({"first_trials": [point], "space": BOTH})
    with pytest.raises(RecipeError, match=r"objective\.gamma_beta_ratio=0\.5 does not lie in the space, or only besi"):
        starting_points(recipe, Space.of(recipe))


def test_a_recipes_own_value_of_a_setting_is_found_by_its_dotted_name() -> None:
    recipe = make_recipe(objective={"name": "dpo", "beta": 0.3})
    assert settings_of(recipe, (VALUE, "objective.beta", "objective.gamma_beta_ratio", "model.lora.rank")) == {
        VALUE: 0.5,  # the paper's, where nothing is given
        "objective.beta": 0.3,
    }
