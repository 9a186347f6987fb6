"""Which metrics a recipe needs, and what it says where it cannot have them."""

import pytest

from mixdpo_ray.difficulty.bees import BeeS
from mixdpo_ray.difficulty.ches import CHES
from mixdpo_ray.difficulty.dcrm import DCRM
from mixdpo_ray.difficulty.implicit_margin import ImplicitMargin
from mixdpo_ray.difficulty.metric import Metric
from mixdpo_ray.difficulty.resolve import needed_metrics
from mixdpo_ray.difficulty.reward_margin import RewardMargin


def test_what_a_metric_combines_comes_before_it() -> None:
    given: dict[str, Metric] = {"reward_margin": RewardMargin(model="r"), "implicit_margin": ImplicitMargin(model="m")}
    assert list(needed_metrics(["bees"], given)) == ["reward_margin", "implicit_margin", "bees"]
    assert list(needed_metrics(["reward_margin", "bees"], given)) == ["reward_margin", "implicit_margin", "bees"]
    assert needed_metrics(["ches"], {"ches": CHES(length_normalised=False)}) == {"ches": CHES(length_normalised=False)}


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        (
            "chess",
            {},
            "curriculum.difficulty: unknown metric 'chess'; did you mean ches?",
        ),
        ("reward_margin", {}, r"reward_margin needs to know model: write metrics: {reward_margin: {model: ...}}"),
        ("implicit_margin", {}, r"implicit_margin needs to know model: write metrics: {implicit_margin: {model: ...}}"),
        ("dcrm", {}, r"metrics.dcrm: reward_margin needs to know model: write metrics: {reward_margin: {model: ...}}"),
        (
            "bees",
            {"bees": BeeS(external="rating_margin", implicit="dcrm"), "dcrm": DCRM(reward="bees")},
            "metrics.dcrm: bees needs dcrm needs bees: name another metric there",
        ),
    ],
)
def test_what_is_missing_is_said_with_what_to_write(asked: str, given: dict[str, Metric], expected: str) -> None:
    with pytest.raises(ValueError, match="metric") as caught:
        needed_metrics([asked], given, "curriculum.difficulty")
    assert expected in str(caught.value)
