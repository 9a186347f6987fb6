"""Where our objectives are TRL's, on random log-probs, and where they differ, on numbers that a reader can check.

Both sides get the same log-probs of single tokens. Compared are the mean loss and its derivatives by every answer's
sum, in float32. The pair of the differences is the one of the worked numbers: chosen sum -12.5 over 10 tokens, rejected
-14.0 over 14, references -13.0 and -13.2. Its log-ratios are +0.5 and -0.8, their gap 1.3, and with beta 0.1 DPO's loss
is log(1 + e^-0.13) = 0.630258.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from mixdpo_ray.objectives.alpha_po import AlphaPO
from mixdpo_ray.objectives.aot import AOT
from mixdpo_ray.objectives.apo_down import APODown
from mixdpo_ray.objectives.apo_zero import APOZero
from mixdpo_ray.objectives.bco import BCO
from mixdpo_ray.objectives.cdpo import CDPO
from mixdpo_ray.objectives.cpo import CPO
from mixdpo_ray.objectives.discopop import DiscoPOP
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.dpo_nll import DPONLL
from mixdpo_ray.objectives.dpo_norm import DPONorm
from mixdpo_ray.objectives.exo import EXO
from mixdpo_ray.objectives.f_dpo import FDPO
from mixdpo_ray.objectives.ipo import IPO
from mixdpo_ray.objectives.kto import KTO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.nca import NCA
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.orpo import ORPO
from mixdpo_ray.objectives.robust_dpo import RobustDPO
from mixdpo_ray.objectives.rso import RSO
from mixdpo_ray.objectives.sft import SFT
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.objectives.slic import SLiC
from mixdpo_ray.objectives.sppo import SPPO
from tests.peer.batch import Batch, Found, joined, random_batch
from tests.peer.conftest import Trl
from tests.peer.ours import our_loss, run_ours, write_inputs
from tests.peer.setup import Row, Setup
from tests.peer.tiny import rows

PAIR = Batch([[-1.25] * 10], [[-1.0] * 14], [-13.0], [-13.2], prompts=[[-2.5] * 4])
MODEST = Batch([[-8 / 6] * 6], [[-9.5 / 8] * 8], [-8.4], [-9.0], prompts=[[-2.5] * 4])  # sums -8 and -9.5


def check_equal(mine: Found, theirs: Found, factor: float = 1.0) -> None:
    """Ours is `factor` times theirs, within what float32 rounds; the largest slope of a batch sets the scale."""
    assert mine.loss == pytest.approx(factor * theirs.loss, rel=1e-5, abs=1e-6)
    expected = [factor * slope for slope in [*theirs.by_chosen, *theirs.by_rejected]]
    scale = max(abs(slope) for slope in expected)
    assert [*mine.by_chosen, *mine.by_rejected] == pytest.approx(expected, rel=1e-4, abs=1e-5 * scale)


DPO_TRAINER = [
    (DPO(beta=0.1), "sigmoid", {"beta": 0.1}),
    (DPO(beta=0.01), "sigmoid", {"beta": 0.01}),
    (RSO(beta=0.1), "hinge", {"beta": 0.1}),
    (IPO(tau=0.1), "ipo", {"beta": 0.1}),
    (IPO(tau=1.0), "ipo", {"beta": 1.0}),
    (DPONorm(beta=5.0), "sigmoid_norm", {"beta": 5.0}),
    (RobustDPO(label_smoothing=0.2), "robust", {"beta": 0.1, "label_smoothing": 0.2}),
    (EXO(), "exo_pair", {"beta": 0.1, "label_smoothing": 1e-3}),
    (EXO(label_smoothing=0.1), "exo_pair", {"beta": 0.1, "label_smoothing": 0.1}),
    (NCA(beta=0.1), "nca_pair", {"beta": 0.1}),
    (BCO(beta=0.1), "bco_pair", {"beta": 0.1}),
    (SPPO(beta=0.1), "sppo_hard", {"beta": 0.1}),
    (SPPO(beta=0.01), "sppo_hard", {"beta": 0.01}),
    (APOZero(beta=0.1), "apo_zero", {"beta": 0.1}),
    (APODown(beta=0.1), "apo_down", {"beta": 0.1}),
    (DiscoPOP(), "discopop", {"beta": 0.1}),
    (DiscoPOP(tau=0.5), "discopop", {"beta": 0.1, "discopop_tau": 0.5}),
    (AOT(), "aot", {"beta": 0.1}),
    (AOT(label_smoothing=0.2), "aot", {"beta": 0.1, "label_smoothing": 0.2}),
    (AOT(unpaired=True), "aot_unpaired", {"beta": 0.1}),
    (AOT(unpaired=True, label_smoothing=0.2), "aot_unpaired", {"beta": 0.1, "label_smoothing": 0.2}),
]
DIVERGENCES = [
    (FDPO(link="forward_kl"), {"f_divergence_type": "forward_kl"}),
    (FDPO(link="js"), {"f_divergence_type": "js_divergence"}),
    (FDPO(link="alpha"), {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.5}),
]
CPO_TRAINER = [
    (SimPO(beta=2.0, gamma_beta_ratio=0.4), "simpo", {"beta": 2.0, "simpo_gamma": 0.8}),
    (SimPO(beta=10.0, gamma_beta_ratio=0.3), "simpo", {"beta": 10.0, "simpo_gamma": 3.0}),
    (AlphaPO(), "simpo", {"beta": 2.0, "simpo_gamma": 1.0, "alpha": 0.25}),
    (CPO(beta=0.1, cpo_alpha=0.0), "sigmoid", {"beta": 0.1}),
    (SLiC(delta=1.0, sft_weight=0.0), "hinge", {"beta": 1.0}),  # without a reference, unlike the hinge of its DPO
]


@pytest.mark.parametrize(("objective", "loss_type", "settings"), DPO_TRAINER, ids=repr)
def test_the_loss_is_that_of_trls_dpo_trainer(
    trl: Trl, objective: Objective, loss_type: str, settings: dict[str, float]
) -> None:
    for seed in range(8):
        batch = random_batch(seed)
        check_equal(our_loss(objective, batch), trl("dpo_loss", batch, loss_type, **settings))


@pytest.mark.parametrize(("objective", "settings"), DIVERGENCES, ids=repr)
def test_other_divergences_are_those_of_trls_dpo_trainer(
    trl: Trl, objective: Objective, settings: dict[str, Any]
) -> None:
    """Of policies near their reference: far from it an exponential of a log-ratio is rounded to whole numbers."""
    for seed in range(0, 16, 2):
        batch = random_batch(seed)
        check_equal(our_loss(objective, batch), trl("dpo_loss", batch, "sigmoid", beta=0.1, **settings))


@pytest.mark.parametrize(("objective", "loss_type", "settings"), CPO_TRAINER, ids=repr)
def test_the_loss_is_that_of_trls_cpo_trainer(
    trl: Trl, objective: Objective, loss_type: str, settings: dict[str, float]
) -> None:
    for seed in range(8):
        batch = random_batch(seed)
        check_equal(our_loss(objective, batch), trl("cpo_loss", batch, loss_type, cpo_alpha=0.0, **settings))


@pytest.mark.parametrize("odds_weight", [0.1, 1.0])
def test_the_odds_ratio_is_that_of_trls_orpo_trainer(trl: Trl, odds_weight: float) -> None:
    for seed in range(8):
        batch = random_batch(seed)
        theirs, likelihood = trl("orpo_odds_loss", batch, odds_weight), our_loss(SFT(), batch)
        whole = Found(
            theirs.loss + likelihood.loss,
            [odds + nll for odds, nll in zip(theirs.by_chosen, likelihood.by_chosen, strict=True)],
            theirs.by_rejected,
        )
        check_equal(our_loss(ORPO(odds_weight=odds_weight), batch), whole)


@pytest.mark.parametrize("foreign", [0.7, -0.7])
def test_kto_on_pairs_is_twice_that_of_trls_kto_trainer(trl: Trl, foreign: float) -> None:
    """Theirs is a mean over answers; ours adds the two of a pair. z is a mean of foreign log-ratios, at least 0."""
    objective = KTO(beta=0.1, desirable_weight=1.2, undesirable_weight=0.9)
    for seed in range(8):
        batch = random_batch(seed)
        mismatched = [foreign + 0.1 * number for number in range(2 * len(batch.chosen))]
        theirs = trl("kto_loss", batch, mismatched, beta=0.1, weights=(1.2, 0.9))
        check_equal(our_loss(objective, batch, mismatched), theirs, factor=2.0)


LIKELIHOODS = [
    (SFT(), "dpo_loss", ("sft",), {"beta": 0.1}),
    (DPONLL(beta=0.1, nll_weight=0.3), "dpo_loss", ("sigmoid", "sft"), {"beta": 0.1, "weights": (1.0, 0.3)}),
    (CPO(beta=0.1, cpo_alpha=0.3), "cpo_loss", ("sigmoid",), {"beta": 0.1, "cpo_alpha": 0.3}),
]


@pytest.mark.parametrize(("objective", "function", "types", "settings"), LIKELIHOODS, ids=repr)
def test_the_likelihood_is_trls_where_all_answers_are_equally_long(
    trl: Trl, objective: Objective, function: str, types: tuple[str, ...], settings: dict[str, Any]
) -> None:
    for seed in range(8):
        batch = random_batch(seed, longest=9, shortest=9)
        check_equal(our_loss(objective, batch), trl(function, batch, *types, **settings))


def test_trls_likelihood_gives_long_answers_more_weight_and_ours_does_not(trl: Trl) -> None:
    """Chosen sums -12.5 over 10 tokens and -8 over 6. TRL: 20.5 / 16 tokens = 1.28125. Ours: (1.25 + 1.333333) / 2."""
    batch = joined(PAIR, MODEST)
    theirs, mine = trl("dpo_loss", batch, "sft", beta=0.1), our_loss(SFT(), batch)
    assert theirs.loss == pytest.approx(1.28125, abs=1e-6)
    assert mine.loss == pytest.approx(1.2916667, abs=1e-6)
    assert theirs.by_chosen == pytest.approx([-1 / 16, -1 / 16])
    assert mine.by_chosen == pytest.approx([-1 / 20, -1 / 12])

    # the same beside a loss of preferences: DPO's are 0.630258 and log(1 + e^-0.09) = 0.649159, mean 0.639709
    theirs = trl("dpo_loss", batch, "sigmoid", "sft", beta=0.1, weights=(1.0, 1.0))
    assert theirs.loss == pytest.approx(0.639709 + 1.28125, abs=1e-5)
    assert our_loss(DPONLL(), batch).loss == pytest.approx(0.639709 + 1.2916667, abs=1e-5)
    # CPO's are log(1 + e^-0.15) = 0.620957 for both, the gaps being 1.5
    assert trl("cpo_loss", batch, "sigmoid", 0.1, 1.0).loss == pytest.approx(0.620957 + 1.28125, abs=1e-5)
    assert our_loss(CPO(), batch).loss == pytest.approx(0.620957 + 1.2916667, abs=1e-5)


def test_trls_likelihood_in_orpo_covers_the_prompt_and_ours_does_not(trl: Trl) -> None:
    """A prompt of -10 over 4 tokens before the chosen answer's -12.5 over 10: 22.5 / 14 = 1.607143 against 1.25. The
    odds ratio adds 0.089581 to either.
    """
    theirs, mine = trl("orpo_loss", PAIR, 0.1), our_loss(ORPO(odds_weight=0.1), PAIR)
    assert theirs.loss == pytest.approx(1.607143 + 0.089581, abs=1e-5)
    assert mine.loss == pytest.approx(1.25 + 0.089581, abs=1e-5)
    assert theirs.by_chosen == pytest.approx([-1 / 14 - 0.008293], abs=1e-5)
    assert mine.by_chosen == pytest.approx([-1 / 10 - 0.008293], abs=1e-5)
    bare = replace(PAIR, prompts=[[]])
    check_equal(our_loss(ORPO(odds_weight=0.1), bare), trl("orpo_loss", bare, 0.1))


def test_trls_dpo_ignores_label_smoothing_and_cdpo_does_not(trl: Trl) -> None:
    """The flipped tenth adds 0.1 x 0.13 to 0.630258. TRL has this loss elsewhere: its AOT of one pair alone."""
    theirs = trl("dpo_loss", PAIR, "sigmoid", beta=0.1, label_smoothing=0.1)
    assert theirs.loss == pytest.approx(0.630258, abs=1e-6)
    assert our_loss(CDPO(label_smoothing=0.1), PAIR).loss == pytest.approx(0.643258, abs=1e-6)
    check_equal(our_loss(CDPO(label_smoothing=0.1), PAIR), trl("dpo_loss", PAIR, "aot", beta=0.1, label_smoothing=0.1))


def test_trls_hinge_is_rso_and_not_slic(trl: Trl) -> None:
    """TRL, with the reference: 1 - 0.1 x 1.3 = 0.87. SLiC, without: the gap of 1.5 exceeds 1, 0.1 x 12.5 is left."""
    theirs = trl("dpo_loss", PAIR, "hinge", beta=0.1)
    assert theirs.loss == pytest.approx(0.87, abs=1e-6)
    assert our_loss(RSO(beta=0.1), PAIR).loss == pytest.approx(0.87, abs=1e-6)
    assert our_loss(SLiC(), PAIR).loss == pytest.approx(1.25, abs=1e-6)


def test_trl_sorts_for_aot_within_a_micro_batch_and_we_within_the_step(trl: Trl) -> None:
    """Policy gaps 1.5 and -1, reference gaps 0.2 and 1. One by one 1.3 and -2; sorted together -1 - 0.2 and 1.5 - 1."""
    tie = Batch([[-1.25] * 16], [[-19 / 12] * 12], [-18.0], [-19.0], prompts=[[-2.5] * 4])
    whole = joined(PAIR, tie)

    def loss(*gaps: float) -> float:
        return sum(math.log1p(math.exp(-0.1 * gap)) for gap in gaps) / len(gaps)

    split = [trl("dpo_loss", half, "aot", beta=0.1).loss for half in (PAIR, tie)]
    assert sum(split) / 2 == pytest.approx(loss(1.3, -2.0), abs=1e-6)
    assert trl("dpo_loss", whole, "aot", beta=0.1).loss == pytest.approx(loss(-1.2, 0.5), abs=1e-6)
    assert our_loss(AOT(), whole).loss == pytest.approx(loss(-1.2, 0.5), abs=1e-6)


def test_trls_z_of_kto_is_a_micro_batchs_and_ours_is_the_steps(trl: Trl) -> None:
    """Foreign log-ratios of -1 in one half and 1 in the other: TRL's z is 0 and 1, as a negative mean counts as 0; the
    step's is 0. With chosen answers counted twice, z = 0 gives 2 sigmoid(-0.05) + sigmoid(-0.08) = 1.455016, and z = 1
    gives 2 sigmoid(0.05) + sigmoid(-0.18) = 1.480116.
    """
    split = [2 * trl("kto_loss", PAIR, [foreign] * 2, beta=0.1, weights=(2.0, 1.0)).loss for foreign in (-1.0, 1.0)]
    mine = our_loss(KTO(beta=0.1, desirable_weight=2.0), joined(PAIR, PAIR), [-1.0, -1.0, 1.0, 1.0])
    assert split == pytest.approx([1.455016, 1.480116], abs=1e-6)
    assert mine.loss == pytest.approx(1.455016, abs=1e-6)


def test_trls_simpo_gamma_is_the_target_itself_and_ours_its_ratio_to_beta(trl: Trl) -> None:
    """Gap of means -0.25, beta 2. A gamma of 0.5: log(1 + e^(0.5 + 0.5)); a ratio of 0.5: log(1 + e^(0.5 + 1))."""
    assert trl("cpo_loss", PAIR, "simpo", 2.0, 0.0, simpo_gamma=0.5).loss == pytest.approx(1.313262, abs=1e-6)
    assert our_loss(SimPO(beta=2.0, gamma_beta_ratio=0.5), PAIR).loss == pytest.approx(1.701413, abs=1e-6)
    # and TRL adds the likelihood, 1.25 here, unless cpo_alpha is 0
    theirs = trl("cpo_loss", PAIR, "simpo", 2.0, 1.0, simpo_gamma=1.0)
    assert theirs.loss == pytest.approx(1.701413 + 1.25, abs=1e-6)


def test_a_pair_in_a_smaller_last_micro_batch_counts_for_more_in_trl_and_not_in_ours(trl: Trl, folder: Path) -> None:
    """Three pairs as micro-batches of two and one: TRL weighs them with 1/4, 1/4 and 1/2, we with 1/3 each."""
    three, objective = rows(3), SimPO(beta=2.0, gamma_beta_ratio=0.5)
    setup = Setup(folder / "model", three, learning_rate=1e-3, global_batch=4, per_device=2, steps=1, beta=2.0)
    their_loss, their_gradient = trl("simpo_step", setup, gamma_beta_ratio=0.5)
    write_inputs(folder, folder / "model", three)
    (mine,) = run_ours(setup, folder, objective).losses

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    losses = objective.losses(pairs_under(model, three))
    skewed = (losses * torch.tensor([1 / 4, 1 / 4, 1 / 2])).sum()
    (gradient,) = torch.autograd.grad(skewed, model.lm_head.weight)
    assert their_loss == pytest.approx(skewed.item(), rel=1e-5)
    torch.testing.assert_close(torch.tensor(their_gradient), gradient.flatten(), rtol=1e-4, atol=1e-6)
    assert mine == pytest.approx(losses.mean().item(), rel=1e-5)
    assert abs(their_loss - mine) > 0.01


def pairs_under(model: Any, rows_: Sequence[Row]) -> PairLogps:
    """One row at a time, without a mask or a padding that could be wrong."""

    def sums(answer: str) -> Tensor:
        totals = []
        for row in rows_:
            ids = torch.tensor([*row["prompt_ids"], *row[answer]])
            logps = model(ids[None]).logits[0, :-1].log_softmax(-1).gather(1, ids[1:, None])
            totals.append(logps[len(row["prompt_ids"]) - 1 :].sum())
        return torch.stack(totals)

    chosen, rejected = (torch.tensor([len(row[answer]) for row in rows_]) for answer in ("chosen_ids", "rejected_ids"))
    return PairLogps(sums("chosen_ids"), sums("rejected_ids"), chosen, rejected, torch.zeros(len(rows_)))
