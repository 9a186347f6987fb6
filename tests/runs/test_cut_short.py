"""What train.max_steps leaves out is said before it is left out."""

from mixdpo_ray.runs.train import cut_short
from tests.curriculum.test_plan import plan_of


def test_a_stage_that_is_not_reached_is_named() -> None:
    """Eight easy pairs and four hard ones, four a step: two steps and one."""
    plan = plan_of(8, 4)
    assert cut_short(2, plan) == (
        "train.max_steps ends the curriculum after 2 of 3 steps; of the hard stage nothing is trained: "
        "curriculum.thin=2 trains all kinds in half the steps"
    )


def test_where_every_stage_is_reached_only_the_steps_are_told() -> None:
    told = cut_short(2, plan_of(4, 8))
    assert told.startswith("train.max_steps ends the curriculum after 2 of 3 steps: curriculum.thin=2")
