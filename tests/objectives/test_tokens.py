"""Objectives that see more of an answer than the sum of its log-probs, on numbers that a reader can check."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mixdpo_ray.objectives.ld_dpo import LDDPO
from mixdpo_ray.objectives.logps import TokenLogps
from mixdpo_ray.objectives.selective_tokens import SelectiveTokens
from mixdpo_ray.objectives.wpo import WPO
from tests.objectives.test_worked_numbers import PAIR, pairs_of


def test_selected_tokens_are_the_ones_where_policy_and_reference_differ_most() -> None:
    """Chosen: reference minus policy is 0.2, 1, -0.4, -0.1, 0.1, of which the upper two fifths are 0.2 and 1. Rejected:
    policy minus reference is -0.2, 0.5, -0.2, 0.4: the upper two. Ratios -1.2 and 0.9, so 0.1 x -2.1 = -0.21.
    """
    tokens = TokenLogps(
        chosen=torch.tensor([[-1, -2, -0.5, -1.5, -0.2]], dtype=torch.float64, requires_grad=True),
        rejected=torch.tensor([[-1.2, -0.4, -2.2, -0.7, 0]], dtype=torch.float64, requires_grad=True),
        ref_chosen=torch.tensor([[-0.8, -1, -0.9, -1.6, -0.1]], dtype=torch.float64),
        ref_rejected=torch.tensor([[-1, -0.9, -2, -1.1, 0]], dtype=torch.float64),
    )
    pairs = replace(
        pairs_of((PAIR,)), chosen_length=torch.tensor([5]), rejected_length=torch.tensor([4]), tokens=tokens
    )
    loss = SelectiveTokens().losses(pairs)
    by_chosen, by_rejected = torch.autograd.grad(loss.sum(), [tokens.chosen, tokens.rejected])
    assert loss.tolist() == pytest.approx([0.803650], abs=1e-6)
    slope = 0.1 / (1 + math.exp(-0.21))
    assert by_chosen.tolist()[0] == pytest.approx([-slope, -slope, 0, 0, 0], abs=1e-9)
    assert by_rejected.tolist()[0] == pytest.approx([0, slope, 0, slope, 0], abs=1e-9)


def test_tokens_beyond_the_shorter_answer_s_length_count_for_less() -> None:
    """Chosen: ratios 0.2, -0.2 and, at half of their size, 0.1, -0.1. Rejected: -0.1, 0.3. 0.1 x (0 - 0.2) = -0.02."""
    tokens = TokenLogps(
        chosen=torch.tensor([[-1, -2, -0.5, -1.5]], dtype=torch.float64, requires_grad=True),
        rejected=torch.tensor([[-1, -1, 0, 0]], dtype=torch.float64, requires_grad=True),
        ref_chosen=torch.tensor([[-1.2, -1.8, -0.6, -1.4]], dtype=torch.float64),
        ref_rejected=torch.tensor([[-0.9, -1.3, 0, 0]], dtype=torch.float64),
    )
    pairs = replace(
        pairs_of((PAIR,)), chosen_length=torch.tensor([4]), rejected_length=torch.tensor([2]), tokens=tokens
    )
    loss = LDDPO().losses(pairs)
    by_chosen, by_rejected = torch.autograd.grad(loss.sum(), [tokens.chosen, tokens.rejected])
    assert loss.tolist() == pytest.approx([0.7031971797266342], abs=1e-12)
    slope = 0.1 / (1 + math.exp(-0.02))
    assert by_chosen.tolist()[0] == pytest.approx([-slope, -slope, -slope / 2, -slope / 2], abs=1e-9)
    assert by_rejected.tolist()[0][:2] == pytest.approx([slope, slope], abs=1e-9)


@pytest.mark.parametrize(("chosen", "rejected", "weight"), [(-0.2, -0.3, math.exp(-0.5)), (0.4, -0.3, 1.0)])
def test_pairs_that_the_policy_would_hardly_write_count_for_less(chosen: float, rejected: float, weight: float) -> None:
    """DPO's loss and slopes times e^(-0.2 - 0.3); a pair likelier than the policy's own draws counts once."""
    pairs = replace(
        pairs_of((PAIR,)),
        chosen_typicality=torch.tensor([chosen], dtype=torch.float64),
        rejected_typicality=torch.tensor([rejected], dtype=torch.float64),
    )
    loss = WPO().losses(pairs)
    slopes = torch.autograd.grad(loss.sum(), [pairs.chosen, pairs.rejected])
    assert loss.item() == pytest.approx(weight * 0.6302581946816906)
    assert [slope.item() for slope in slopes] == pytest.approx([-weight * 0.046754569, weight * 0.046754569])
