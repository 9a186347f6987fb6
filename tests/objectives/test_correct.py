"""Which pairs count as right: rounding is no preference, and a preference is no rounding."""

from __future__ import annotations

from dataclasses import replace

import torch

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.simpo import SimPO


def pairs_off_by(*offsets: float) -> PairLogps:
    """Answers of 8 tokens and 10 nats; the policy holds the chosen one so much higher than the reference does."""
    same, count = torch.full((len(offsets),), -10.0), torch.full((len(offsets),), 8.0)
    return PairLogps(
        chosen=same + torch.tensor(offsets), rejected=same, chosen_length=count, rejected_length=count,
        margin=torch.ones(len(offsets)), ref_chosen=same, ref_rejected=same,
    )  # fmt: skip


def test_where_policy_and_reference_differ_by_rounding_alone_a_pair_is_a_tie() -> None:
    pairs = pairs_off_by(0.0, 4e-6, -4e-6)
    assert DPO(beta=0.1).correct(pairs).tolist() == [0.5, 0.5, 0.5]


def test_what_training_moves_is_counted_however_little_it_is() -> None:
    assert DPO(beta=0.1).correct(pairs_off_by(1e-3, -1e-3, 1e-4)).tolist() == [1.0, 0.0, 1.0]


def test_rounding_is_measured_by_the_sums_and_the_tokens() -> None:
    longer = replace(pairs_off_by(1e-3), chosen_length=torch.tensor([800.0]))
    assert DPO(beta=0.1).correct(longer).tolist() == [0.5]


def test_an_objective_without_a_reference_compares_what_the_policy_says() -> None:
    assert SimPO().correct(pairs_off_by(4e-6, 0.0)).tolist() == [1.0, 0.5]
