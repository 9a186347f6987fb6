"""Objectives that see more of an answer than a sum, beside TRL's: their loss and its mean derivative by tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

from mixdpo_ray.objectives.ld_dpo import LDDPO
from mixdpo_ray.objectives.logps import PairLogps, TokenLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.wpo import WPO
from tests.peer.batch import Batch, Found, random_batch
from tests.peer.conftest import Trl
from tests.peer.test_formulas import PAIR, check_equal


def token_loss(objective: Objective, batch: Batch) -> Found:
    """Of an objective that sees single tokens, whose references are 0, or how typical they are of two words."""
    sides = [
        [torch.tensor(answer, requires_grad=True) for answer in answers] for answers in (batch.chosen, batch.rejected)
    ]
    padded = [pad_sequence(side, batch_first=True) for side in sides]
    probable = [[answer.exp() for answer in side] for side in sides]
    typical = [
        torch.stack([(p.log() - (p.square() + (1 - p).square()).log()).mean() for p in side]) for side in probable
    ]
    pairs = PairLogps(
        torch.stack([answer.sum() for answer in sides[0]]),
        torch.stack([answer.sum() for answer in sides[1]]),
        torch.tensor([len(answer) for answer in batch.chosen]),
        torch.tensor([len(answer) for answer in batch.rejected]),
        torch.zeros(len(batch.chosen)),
        torch.tensor(batch.ref_chosen),
        torch.tensor(batch.ref_rejected),
        tokens=TokenLogps(padded[0], padded[1], torch.zeros_like(padded[0]), torch.zeros_like(padded[1])),
        chosen_typicality=typical[0],
        rejected_typicality=typical[1],
    )
    loss = objective.losses(pairs).mean()
    slopes = torch.autograd.grad(loss, [*sides[0], *sides[1]])
    means = [slope.mean().item() for slope in slopes]
    return Found(loss.item(), means[: len(batch.chosen)], means[len(batch.chosen) :])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_tokens_beyond_the_shorter_answer_count_as_in_trls_dpo_trainer(trl: Trl, alpha: float) -> None:
    for seed in range(4):
        batch = random_batch(seed)
        none = [0.0] * len(batch.chosen)
        batch = replace(batch, ref_chosen=none, ref_rejected=none)
        theirs = trl("dpo_loss", batch, "sigmoid", beta=0.1, ld_alpha=alpha)
        check_equal(token_loss(LDDPO(alpha=alpha), batch), theirs)


def test_pairs_are_weighed_by_how_typical_they_are_as_in_trls_dpo_trainer(trl: Trl) -> None:
    """Where no weight is above 1, at which the authors' code cuts it, and TRL does not."""
    for seed in range(4):
        batch = random_batch(seed)
        rarer = [[[logp - 0.7 for logp in answer] for answer in side] for side in (batch.chosen, batch.rejected)]
        rare = replace(batch, chosen=rarer[0], rejected=rarer[1])
        check_equal(token_loss(WPO(), rare), trl("dpo_loss", rare, "sigmoid", beta=0.1, use_weighting=True))
    likely = replace(PAIR, chosen=[[-0.3] * 10], rejected=[[-0.3] * 14])
    theirs = trl("dpo_loss", likely, "sigmoid", beta=0.1, use_weighting=True)
    weight = math.exp(2 * (-0.3 - math.log(math.exp(-0.6) + (1 - math.exp(-0.3)) ** 2)))
    assert weight > 1
    assert theirs.loss == pytest.approx(weight * token_loss(WPO(), likely).loss, rel=1e-5)
