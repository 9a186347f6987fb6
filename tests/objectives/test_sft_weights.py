"""The four things an SFT loss is divided by, on four hard pairs: 56 completion tokens, summed log-probs -70.5."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.sft_weights import SftNorm, sft_weights

NORMS: list[SftNorm] = ["token_mean", "token_mean_local", "example_mean", "example_sum"]
SUMS = [-12.5, -20.0, -30.0, -8.0]
LENGTHS = [10, 16, 24, 6]


def losses_and_slopes(norm: SftNorm, micro_batches: list[list[int]]) -> tuple[list[float], list[float]]:
    """Each pair's part of the window's loss, and its derivative by the pair's summed log-prob."""
    sums = torch.tensor(SUMS, dtype=torch.float64, requires_grad=True)
    losses = torch.zeros(4, dtype=torch.float64)
    for rows in micro_batches:
        lengths = torch.tensor(LENGTHS, dtype=torch.float64)[rows]
        weights = weights_of(lengths, norm, micro_batches=len(micro_batches))
        losses = losses.index_add(0, torch.tensor(rows), -weights * sums[rows])
    (slopes,) = torch.autograd.grad(losses.sum(), sums)
    return losses.tolist(), slopes.tolist()


def weights_of(lengths: Tensor, norm: SftNorm, micro_batches: int = 1) -> Tensor:
    return sft_weights(lengths, norm, window_pairs=4, window_tokens=56, window_micro_batches=micro_batches)


def test_token_mean_divides_by_the_tokens_of_the_window() -> None:
    """12.5 / 56, 20 / 56, 30 / 56, 8 / 56: together 70.5 / 56 = 1.258929. Times 4 pairs the first is 0.892857."""
    losses, slopes = losses_and_slopes("token_mean", [[0, 1, 2, 3]])
    assert losses[0] * 4 == pytest.approx(0.8928571428571429, abs=1e-6)
    assert slopes[0] * 4 == pytest.approx(-0.07142857142857142, abs=1e-6)
    assert sum(losses) == pytest.approx(70.5 / 56, abs=1e-6)
    assert slopes == pytest.approx([-1 / 56] * 4, abs=1e-9)


def test_example_mean_divides_each_answer_by_its_own_length() -> None:
    """12.5 / 10 = 1.25 for the first pair, 20 / 16 = 1.25, 30 / 24 = 1.25, 8 / 6 = 1.333333; then a mean over four."""
    losses, slopes = losses_and_slopes("example_mean", [[0, 1, 2, 3]])
    assert [loss * 4 for loss in losses] == pytest.approx([1.25, 1.25, 1.25, 8 / 6], abs=1e-6)
    assert [slope * 4 for slope in slopes] == pytest.approx([-0.1, -1 / 16, -1 / 24, -1 / 6], abs=1e-6)


def test_example_sum_divides_by_the_number_of_pairs_only() -> None:
    """12.5 for the first pair with slope -1: two hundred times DPO's at beta 0.01."""
    losses, slopes = losses_and_slopes("example_sum", [[0, 1, 2, 3]])
    assert [loss * 4 for loss in losses] == pytest.approx([12.5, 20.0, 30.0, 8.0], abs=1e-6)
    assert [slope * 4 for slope in slopes] == pytest.approx([-1.0] * 4, abs=1e-6)


def test_token_mean_local_is_a_mean_of_micro_batch_means() -> None:
    """Of 26 and 30 tokens: (32.5 / 26 + 38 / 30) / 2 = (1.25 + 1.266667) / 2 = 1.258333, not 70.5 / 56."""
    losses, slopes = losses_and_slopes("token_mean_local", [[0, 1], [2, 3]])
    assert sum(losses) == pytest.approx(1.2583333, abs=1e-6)
    assert slopes == pytest.approx([-1 / 52, -1 / 52, -1 / 60, -1 / 60], abs=1e-9)


@pytest.mark.parametrize("norm", ["token_mean", "example_mean", "example_sum"])
@pytest.mark.parametrize("split", [[[0, 1], [2, 3]], [[3], [0, 2], [1]], [[0], [1], [2], [3]]], ids=str)
def test_global_norms_do_not_depend_on_micro_batches(norm: SftNorm, split: list[list[int]]) -> None:
    assert losses_and_slopes(norm, split)[0] == pytest.approx(losses_and_slopes(norm, [[0, 1, 2, 3]])[0], abs=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_lengths_that_are_whole_numbers_give_the_same_weights(norm: SftNorm) -> None:
    """Token counts arrive as integers; a weight of 1 / 56 must not be rounded to 0."""
    assert weights_of(torch.tensor(LENGTHS), norm).tolist() == pytest.approx(
        weights_of(torch.tensor(LENGTHS, dtype=torch.float64), norm).tolist(), rel=1e-6
    )


@pytest.mark.parametrize("norm", NORMS)
def test_a_window_without_a_hard_pair_has_no_weights_and_divides_by_nothing(norm: SftNorm) -> None:
    weights = sft_weights(
        torch.zeros(0, dtype=torch.int64), norm, window_pairs=0, window_tokens=0, window_micro_batches=0
    )
    assert weights.shape == (0,)
    assert weights.is_floating_point()


def test_a_router_batch_of_three_easy_pairs_and_a_hard_one() -> None:
    """The window's loss is (1/4) [sum of easy DPO losses + 1 x the hard pair's mean], with beta 0.01.

    Gaps of the easy pairs: 1.3; (1 - -3) = 4; (0.4 - -0.5) = 0.9. So -log sigmoid of 0.013, 0.04 and 0.009 gives
    0.686668, 0.673347 and 0.688657; the hard pair adds 20 / 16 = 1.25. The mean of the four is 0.824668.
    """
    chosen = torch.tensor([-12.5, -20.0, -30.0, -8.0], dtype=torch.float64, requires_grad=True)
    rejected = torch.tensor([-14.0, -19.0, -45.0, -9.5], dtype=torch.float64, requires_grad=True)
    ref_chosen = torch.tensor([-13.0, torch.nan, -31.0, -8.4], dtype=torch.float64)  # the hard pair has no reference
    ref_rejected = torch.tensor([-13.2, torch.nan, -42.0, -9.0], dtype=torch.float64)
    easy, hard = torch.tensor([0, 2, 3]), torch.tensor([1])
    pairs = PairLogps(
        chosen[easy],
        rejected[easy],
        torch.tensor([10, 24, 6]),
        torch.tensor([14, 30, 8]),
        torch.tensor([1.5, 5.0, 1.0]),
        ref_chosen[easy],
        ref_rejected[easy],
    )
    dpo = DPO(beta=0.01).losses(pairs)
    weights = sft_weights(
        torch.tensor([16.0], dtype=torch.float64),
        "example_mean",
        window_pairs=1,
        window_tokens=16,
        window_micro_batches=1,
    )
    sft = -weights * chosen[hard]
    loss = (dpo.sum() + 1 * sft.sum()) / 4
    by_chosen, by_rejected = torch.autograd.grad(loss, [chosen, rejected])
    assert dpo.tolist() == pytest.approx([0.6866683054, 0.6733471672, 0.6886573055], abs=1e-6)
    assert sft.tolist() == pytest.approx([1.25], abs=1e-6)
    assert loss.item() == pytest.approx(0.824668, abs=1e-6)
    # 0.01 x (1 - sigmoid(0.013)) / 4 for the first pair, 1 / 16 / 4 for the hard one
    assert by_chosen.tolist() == pytest.approx([-0.001241875, -0.015625, -0.001225003, -0.001244375], abs=1e-8)
    assert by_rejected.tolist() == pytest.approx([0.001241875, 0, 0.001225003, 0.001244375], abs=1e-8)
