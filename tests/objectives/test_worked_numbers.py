"""Losses and gradients that were derived by hand and agree with the authors' own code.

All of them are about one pair: chosen sum -12.5 over 10 tokens (reference -13.0), rejected sum -14.0 over 14 tokens
(reference -13.2). So the log-ratios are +0.5 and -0.8, their gap 1.3, and the gap of length-means is
-1.25 - (-1.0) = -0.25: the longer answer is the likelier one per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.logps import PairLogps


@dataclass(frozen=True)
class Worked:
    name: str
    hyperparameters: dict[str, float | bool]
    loss: float
    by_chosen: float  # derivative with respect to the chosen answer's sum
    by_rejected: float


WORKED = [
    # sigmoid(0.1 x 1.3) = 0.532454: loss -log of it, slope 0.1 x (1 - 0.532454)
    Worked("dpo", {"beta": 0.1}, 0.6302581946816906, -0.04675456936126812, 0.04675456936126812),
    # the paper's beta: sigmoid(0.013) = 0.503250, slope 0.01 x 0.496750
    Worked("dpo", {"beta": 0.01}, 0.6866683054111917, -0.004967500457700598, 0.004967500457700598),
    # per token: 0.5 / 10 - (-0.8) / 14 = 0.107143, target 5: (-4.892857)^2, slopes 2 x -4.892857 / 10 and / 14
    Worked("ipo", {"tau": 0.1}, 23.94005102040816, -0.9785714285714284, 0.6989795918367346),
    # sums: (1.3 - 5)^2 = 3.7^2, slope 2 x -3.7
    Worked("ipo", {"tau": 0.1, "length_norm": False}, 13.69, -7.4, 7.4),
    # 2 x -0.25 - 2 x 0.5 = -1.5: loss log(1 + e^1.5), slopes 2 x sigmoid(1.5) = 1.635149 over 10 and over 14
    Worked(
        "simpo", {"beta": 2.0, "gamma_beta_ratio": 0.5}, 1.7014132779827524, -0.16351489523872872, 0.11679635374194909
    ),
]


@pytest.mark.parametrize("case", WORKED, ids=lambda case: f"{case.name}-{case.hyperparameters}")
def test_loss_and_both_gradients_equal_the_worked_numbers(case: Worked) -> None:
    chosen = torch.tensor([-12.5], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-14.0], dtype=torch.float64, requires_grad=True)
    pairs = PairLogps(
        chosen=chosen,
        rejected=rejected,
        chosen_length=torch.tensor([10]),
        rejected_length=torch.tensor([14]),
        margin=torch.tensor([1.5], dtype=torch.float64),
        ref_chosen=torch.tensor([-13.0], dtype=torch.float64),
        ref_rejected=torch.tensor([-13.2], dtype=torch.float64),
    )
    losses = OBJECTIVES[case.name](**case.hyperparameters).losses(pairs)
    by_chosen, by_rejected = torch.autograd.grad(losses.sum(), [chosen, rejected])
    assert losses.tolist() == pytest.approx([case.loss], abs=1e-6)
    assert by_chosen.tolist() == pytest.approx([case.by_chosen], abs=1e-6)
    assert by_rejected.tolist() == pytest.approx([case.by_rejected], abs=1e-6)


def test_every_objective_has_worked_numbers() -> None:
    """A new key in OBJECTIVES turns this red until someone has done its arithmetic above."""
    assert {case.name for case in WORKED} == set(OBJECTIVES)


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_a_policy_that_equals_its_reference_has_dpo_loss_ln_2(beta: float) -> None:
    """Both log-ratios are 0, so the loss is -log sigmoid(0) = log 2 = 0.693147 whatever beta is."""
    sums = torch.tensor([-12.5, -400.0]), torch.tensor([-14.0, -3.0])
    lengths = torch.tensor([10, 300]), torch.tensor([14, 2])
    pairs = PairLogps(*sums, *lengths, torch.zeros(2), *sums)
    assert DPO(beta=beta).losses(pairs).tolist() == pytest.approx([0.6931472] * 2, abs=1e-7)
