"""What is lost on a tie, beside what is lost on a win."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mixdpo_ray.objectives.dpo_d import DPOD
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.todo import TODO
from tests.objectives.test_worked_numbers import CLEAR, PAIR, TIE, pairs_of

# log(e^1 - 1) is 0.541325; of the sigmoids of -0.5 + 0.13 and of -0.5 - 0.13 the logs are -0.895163 and -1.056960
TIES = [
    (TODO(), 1.4107983849295938, 0.006103048375996456),
    (DPOD(), 0.6942032446682923, 0.0016244281062072431),  # log(e^0.065 + e^-0.065 + 2) - log 2
]


@pytest.mark.parametrize(("objective", "expected", "slope"), TIES, ids=repr)
def test_a_tie_has_a_loss_of_its_own_whose_slopes_have_the_other_sign(
    objective: Objective, expected: float, slope: float
) -> None:
    pairs = pairs_of((PAIR,))
    loss = objective.hard_losses(pairs)
    slopes = torch.autograd.grad(loss.sum(), [pairs.chosen, pairs.rejected])
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert [one.item() for one in slopes] == pytest.approx([slope, -slope], abs=1e-9)


@pytest.mark.parametrize("objective", [TODO(), TODO(alpha=0.1), DPOD(), DPOD(nu=0.2)], ids=repr)
def test_a_win_a_loss_and_a_tie_are_all_there_is(objective: Objective) -> None:
    """Their probabilities add to 1: for TODO with alpha 0.5 they are 0.408541, 0.347510 and 0.243949."""
    pairs = pairs_of((PAIR, TIE, CLEAR))
    swapped = replace(
        pairs, chosen=pairs.rejected, rejected=pairs.chosen, ref_chosen=pairs.ref_rejected,
        ref_rejected=pairs.ref_chosen,
    )  # fmt: skip
    outcomes = objective.losses(pairs), objective.losses(swapped), objective.hard_losses(pairs)
    assert torch.stack([(-loss).exp() for loss in outcomes]).sum(0).tolist() == pytest.approx([1.0] * 3)


@pytest.mark.parametrize(("nu", "share"), [(1.0, 0.5), (0.25, 0.2)])
def test_nu_is_the_share_of_ties_between_equal_answers(nu: float, share: float) -> None:
    equal = pairs_of(((-12.5, -14.0, -12.5, -14.0, 10, 14, 0.0),))
    assert DPOD(nu=nu).hard_losses(equal).neg().exp().item() == pytest.approx(share)
