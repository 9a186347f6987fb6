"""What holds for every preference objective in the table, whatever its formula."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.ipo import IPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.search.ranges import read_range

EVERY = [
    *[objective() for objective in OBJECTIVES.values()],
    IPO(length_norm=False),
    DPO(beta=0.01),
]
every_objective = pytest.mark.parametrize("objective", EVERY, ids=repr)
sums = st.floats(-1e4, 0, width=32)
lengths = st.integers(1, 2048)
one_pair = st.tuples(sums, sums, lengths, lengths, st.sampled_from([0.0, 0.5, 9.0]), sums, sums)


def pairs_of(rows: list[tuple[float, ...]]) -> PairLogps:
    columns = torch.tensor(rows, dtype=torch.float32).unbind(1)
    return PairLogps(columns[0].requires_grad_(), columns[1].requires_grad_(), *columns[2:])


@every_objective
def test_one_loss_and_two_rewards_per_pair(objective: Objective) -> None:
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5, -13.0, -13.2), (-20, -19, 16, 12, 0, -20.5, -19.4)])
    chosen, rejected = objective.rewards(pairs)
    assert objective.losses(pairs).shape == chosen.shape == rejected.shape == (2,)


@every_objective
def test_training_pulls_the_chosen_answer_up_and_the_rejected_one_down(objective: Objective) -> None:
    """At the start of training, policy equal to reference, a step against the gradient must widen the gap."""
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5, -12.5, -14.0), (-20, -19, 16, 12, 0, -20, -19)])
    by_chosen, by_rejected = torch.autograd.grad(objective.losses(pairs).sum(), [pairs.chosen, pairs.rejected])
    assert (by_chosen < 0).all()
    assert (by_rejected > 0).all()


def test_ipo_pulls_back_a_gap_that_is_wider_than_its_target() -> None:
    """Target 1 / (2 x 0.5) = 1; a gap of 3 has loss 4 and slope 2 x (3 - 1) = +4 by the chosen sum."""
    pairs = pairs_of([(-10.0, -17.0, 10, 14, 1.5, -12.0, -16.0)])
    losses = IPO(tau=0.5, length_norm=False).losses(pairs)
    (by_chosen,) = torch.autograd.grad(losses.sum(), [pairs.chosen])
    assert losses.tolist() == [4.0]
    assert by_chosen.tolist() == [4.0]


@every_objective
@settings(deadline=None, derandomize=True, max_examples=40)
@given(rows=st.lists(one_pair, min_size=2, max_size=5))
def test_no_pair_feels_another(objective: Objective, rows: list[tuple[float, ...]]) -> None:
    """The loss of a batch is the losses of its pairs alone, and the first loss moves nothing but the first pair."""
    batch = pairs_of(rows)
    losses = objective.losses(batch)
    alone = torch.cat([objective.losses(pairs_of([row])) for row in rows])
    torch.testing.assert_close(losses, alone, rtol=1e-5, atol=1e-5)
    for slope in torch.autograd.grad(losses[0], [batch.chosen, batch.rejected]):
        assert not slope[1:].any()


@every_objective
@settings(deadline=None, derandomize=True, max_examples=60)
@given(row=one_pair)
def test_losses_rewards_and_slopes_are_finite_over_extreme_inputs(objective: Objective, row: tuple[float, ...]) -> None:
    pairs = pairs_of([row])
    losses = objective.losses(pairs)
    for values in (
        losses,
        *objective.rewards(pairs),
        *torch.autograd.grad(losses.sum(), [pairs.chosen, pairs.rejected]),
    ):
        assert values.isfinite().all()


@every_objective
@pytest.mark.parametrize("total", [0.0, -1e4])
def test_two_equal_answers_of_one_token_have_a_finite_loss_and_equal_rewards(
    objective: Objective, total: float
) -> None:
    pairs = pairs_of([(total, total, 1, 1, 0.0, total, total)])
    chosen, rejected = objective.rewards(pairs)
    assert objective.losses(pairs).isfinite().all()
    assert torch.equal(chosen, rejected)


@every_objective
def test_an_objective_says_truly_whether_it_needs_the_reference(objective: Objective) -> None:
    """Without one no reference is run and no sums arrive: the others must refuse rather than guess."""
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5)])
    if objective.needs_reference:
        with pytest.raises(AssertionError, match="needs_reference"):
            objective.losses(pairs)
    else:
        assert objective.losses(pairs).isfinite().all()


def test_rewards_are_beta_times_the_log_ratio_or_the_length_mean() -> None:
    """DPO: 0.1 x (+0.5, -0.8). IPO: 0.1 x (0.5 / 10, -0.8 / 14). SimPO: 2 x (-12.5 / 10, -14 / 14)."""
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5, -13.0, -13.2)])
    rewards = {name: [side.item() for side in OBJECTIVES[name]().rewards(pairs)] for name in ("dpo", "ipo", "simpo")}
    assert rewards["dpo"] == pytest.approx([0.05, -0.08], abs=1e-6)
    assert rewards["ipo"] == pytest.approx([0.005, -0.00571429], abs=1e-6)
    assert rewards["simpo"] == pytest.approx([-2.5, -2.0], abs=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, "strong", None])
def test_hyperparameters_that_are_no_positive_number_are_refused_by_name(name: str, value: object) -> None:
    numbers = [field for field, about in OBJECTIVES[name].model_fields.items() if about.annotation is float]
    assert numbers
    for field in numbers:
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


@pytest.mark.parametrize(("name", "field"), [("dpo", "beta"), ("ipo", "tau"), ("simpo", "beta")])
def test_a_strength_of_zero_is_refused(name: str, field: str) -> None:
    with pytest.raises(ValidationError, match="greater than 0"):
        OBJECTIVES[name].model_validate({field: 0})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unknown_hyperparameters_and_later_changes_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="bta"):
        OBJECTIVES[name].model_validate({"bta": 0.1})
    objective = OBJECTIVES[name]()
    with pytest.raises(ValidationError, match="frozen"):
        objective.__setattr__(next(iter(OBJECTIVES[name].model_fields)), 1.0)


def test_a_strength_written_as_yaml_reads_it_is_a_number() -> None:
    """YAML gives `5e-3` as a string."""
    assert DPO.model_validate({"beta": "5e-3"}).beta == 0.005
