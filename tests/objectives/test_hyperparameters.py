"""Which hyperparameters an objective takes, and where a search may look for them."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.recipe.ranges import read_range


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, "strong", None])
def test_hyperparameters_that_are_no_positive_number_are_refused_by_name(name: str, value: object) -> None:
    for field in [field for field, about in OBJECTIVES[name].model_fields.items() if about.annotation is float]:
        with pytest.raises(ValidationError, match=field):
            OBJECTIVES[name].model_validate({field: value})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_number_of_an_objective_has_a_range_to_be_searched_in(name: str) -> None:
    """From it alone the default space of a search follows."""
    numbers = {field for field, about in OBJECTIVES[name].model_fields.items() if about.annotation in (float, int)}
    assert numbers <= OBJECTIVES[name].search.keys() <= OBJECTIVES[name].model_fields.keys()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_class_takes_the_ends_of_its_ranges_and_its_default_lies_between(name: str) -> None:
    """Otherwise trials would be drawn that cannot be, or the recipe's own settings could not be the first."""
    for field, written in OBJECTIVES[name].search.items():
        range_ = read_range(field, {kind: list(ends) for kind, ends in written.items()})
        for value in range_.probes():
            assert getattr(OBJECTIVES[name].model_validate({field: value}), field) == value
        assert range_.holds(getattr(OBJECTIVES[name](), field))


@pytest.mark.parametrize(
    ("name", "field"), [("dpo", "beta"), ("ipo", "tau"), ("simpo", "beta"), ("orpo", "odds_weight")]
)
def test_a_strength_of_zero_is_refused(name: str, field: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        OBJECTIVES[name].model_validate({field: 0})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unknown_hyperparameters_and_later_changes_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="bta"):
        OBJECTIVES[name].model_validate({"bta": 0.1})
    objective = OBJECTIVES[name]()
    with pytest.raises(ValidationError, match="frozen"):
        objective.__setattr__(next(iter(OBJECTIVES[name].model_fields), "beta"), 1.0)


def test_a_strength_written_as_yaml_reads_it_is_a_number() -> None:
    """YAML gives `5e-3` as a string."""
    assert DPO.model_validate({"beta": "5e-3"}).beta == 0.005


@pytest.mark.parametrize("name", ["cdpo", "robust_dpo", "spa", "exo", "aot"])
def test_half_of_the_labels_flipped_is_refused_with_the_allowed_range(name: str) -> None:
    with pytest.raises(ValidationError, match=r"label_smoothing(\.\S+)?\n  Input should be less than 0\.5"):
        OBJECTIVES[name].model_validate({"label_smoothing": 0.5})


def test_a_setting_of_another_objective_is_refused() -> None:
    with pytest.raises(ValidationError, match="gamma_beta_ratio"):
        OBJECTIVES["dpo"].model_validate({"gamma_beta_ratio": 0.5})
