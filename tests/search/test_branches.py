"""A range under one value of another setting: how it is written is shown in the person's own names."""

from __future__ import annotations

import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.search.branches import told_of_equal_trials
from mixdpo_ray.search.space import Space
from tests.search.recipes import make_recipe

BETA = {"loguniform": [0.01, 1]}


def test_a_range_beside_the_choice_that_brings_it_is_shown_where_it_belongs() -> None:
    space = {"objective.name": {"choice": ["dpo", "simpo"]}, "objective.beta": BETA}
    with pytest.raises(RecipeError) as caught:
        Space.of(make_recipe({"space": space}))
    example = "objective.name: {choice: {dpo: {objective.beta: {loguniform: [0.01, 1]}}, simpo: {}}}"
    assert str(caught.value).endswith(f"write it there, in braces, for each value, such as {example}")


def test_the_example_that_is_shown_is_a_space_that_works() -> None:
    space = {"objective.name": {"choice": {"dpo": {"objective.beta": BETA}, "simpo": {}}}}
    assert Space.of(make_recipe({"space": space})).settings == ("objective.name", "objective.beta")


def test_an_arm_with_nothing_to_vary_is_said_to_repeat_one_training() -> None:
    alone = {"objective.name": {"choice": {"dpo": {"objective.beta": BETA}, "simpo": {}}}}
    told = told_of_equal_trials(alone)
    assert told is not None
    assert told.startswith(
        "tune.space: nothing varies under objective.name=simpo, so trials with it repeat one training"
    )
    rate = {"train.optimizer.learning_rate": BETA}
    assert told_of_equal_trials({**alone, **rate}) is None
    assert told_of_equal_trials({"objective.name": {"choice": ["dpo", "simpo"]}}) is None
    assert told_of_equal_trials({}) is None
