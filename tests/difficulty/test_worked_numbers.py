"""Numbers that can be checked by hand, on the four pairs that the objectives' worked numbers use too."""

import math

import numpy as np
import pytest
import torch

from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.alignment_potential import AlignmentPotential, alignment_potential
from mixdpo_ray.difficulty.bees import BeeS, joined, vote
from mixdpo_ray.difficulty.ches import CHES, ches, ches_per_token
from mixdpo_ray.difficulty.dcrm import DCRM, distance_calibrated_margin, edit_distance
from mixdpo_ray.difficulty.embedding_distance import EmbeddingDistance
from mixdpo_ray.difficulty.implicit_margin import ImplicitMargin
from mixdpo_ray.difficulty.length import Length
from mixdpo_ray.difficulty.metric import AnswerLogps, Metric, MetricInputs
from mixdpo_ray.difficulty.perplexity import Perplexity
from mixdpo_ray.difficulty.rating_margin import RatingMargin
from mixdpo_ray.difficulty.reward_margin import RewardMargin
from mixdpo_ray.difficulty.validation_loss import ValidationLoss, dpo_loss

# pairs:              0      1      2      3
CHOSEN = np.array([-12.5, -20.0, -30.0, -8.0])
REJECTED = np.array([-14.0, -19.0, -45.0, -9.5])
REF_CHOSEN = np.array([-13.0, -20.5, -31.0, -8.4])
REF_REJECTED = np.array([-13.2, -19.4, -42.0, -9.0])
MARGIN = np.array([1.5, 0.0, 5.0, 1.0])
GAP = np.array([1.3, 0.1, 4.0, 0.9])  # (c - rc) - (r - rr)
POLICY, REFERENCE = AnswerLogps(CHOSEN, REJECTED), AnswerLogps(REF_CHOSEN, REF_REJECTED)
EXTERNAL = {"reward_margin": MARGIN, "implicit_margin": GAP}


def facts(**more: object) -> MetricInputs:
    lengths = {"chosen_length": np.array([10.0, 16, 24, 6]), "rejected_length": np.array([14.0, 12, 30, 8])}
    given = {"prompt_length": np.full(4, 5.0), "train": np.ones(4, np.bool_), **lengths, **more}
    return MetricInputs(margin=MARGIN, **given)  # type: ignore[arg-type]


# name -> (settings, what it is told, its values, derived once by hand, or three operations away)
WORKED: dict[str, list[tuple[Metric, MetricInputs, list[float]]]] = {
    "rating_margin": [(RatingMargin(), facts(), [1.5, 0, 5, 1])],
    "length": [
        (Length(), facts(), [-10, -16, -24, -6]),
        (Length(of="pair"), facts(), [-29, -33, -59, -19]),
    ],
    "reward_margin": [
        (
            RewardMargin(model="m"),
            facts(scores={"reward_chosen": np.array([1.0, 2, 3, 4]), "reward_rejected": np.array([0.5, 3, 3, -1])}),
            [0.5, -1, 0, 5],
        )
    ],
    "embedding_distance": [
        (EmbeddingDistance(model="m", easy=easy), facts(scores={"distance": np.arange(4.0)}), values)
        for easy, values in (("far", [0.0, 1, 2, 3]), ("near", [0.0, -1, -2, -3]))
    ],
    "implicit_margin": [
        (ImplicitMargin(model="m"), facts(logps=[POLICY, REFERENCE]), [1.3, 0.1, 4.0, 0.9]),
        (  # -12.5/10 + 14/14; -20/16 + 19/12; -30/24 + 45/30; -8/6 + 9.5/8
            ImplicitMargin(reference_free=True),
            facts(logps=[POLICY]),
            [-0.25, 1 / 3, 0.25, -4 / 3 + 9.5 / 8],
        ),
    ],
    "perplexity": [(Perplexity(), facts(logps=[POLICY]), [-1.25, -1.25, -1.25, -4 / 3])],
    "alignment_potential": [
        (
            AlignmentPotential(),
            facts(logps=[POLICY], metrics=EXTERNAL),
            [-0.277443, -2.327128, 1.580982, 1.023589],
        ),
        (  # 1.5 - 2.5 * 0.25 and so on
            AlignmentPotential(standardise=False, weight=2.5),
            facts(logps=[POLICY], metrics=EXTERNAL),
            [0.875, -0.833333, 4.375, 0.635417],
        ),
    ],
    "ches": [
        (CHES(length_normalised=normalised), facts(scores={"ches": np.ones(4), "ches_per_token": np.full(4, 2.0)}), low)
        for normalised, low in ((False, [-1.0] * 4), (True, [-2.0] * 4))
    ],
    "dcrm": [
        (  # |rc - rr| = 0.2, 1.1, 11, 0.6; (sigmoid(1.5) - 1/2) / (2 + 0.2 + 1)
            DCRM(),
            facts(logps=[REFERENCE], metrics=EXTERNAL, scores={"edits": np.array([2.0, 3, 4, 1])}),
            [0.099242, 0, 0.49330715 / 16, 0.23105858 / 2.6],
        )
    ],
    "bees": [
        (
            BeeS(external_bounds=(-1, 4), implicit_bounds=(-2, 2)),
            facts(metrics=EXTERNAL),
            [0.825, 0.216495, 1.0, 0.637363],
        )
    ],
    "validation_loss": [(ValidationLoss(), facts(scores={"loss": np.arange(4.0)}), [0, -1, -2, -3])],
}


def test_every_metric_has_worked_numbers() -> None:
    assert set(WORKED) == set(METRICS)


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in WORKED for number in range(len(WORKED[name]))])
def test_a_metric_gives_its_worked_numbers(name: str, number: int) -> None:
    metric, told, expected = WORKED[name][number]
    assert type(metric) is METRICS[name]
    np.testing.assert_allclose(metric.values(told), expected, atol=1e-6)


@pytest.mark.parametrize("kind", METRICS.values(), ids=lambda kind: kind.__name__)
def test_every_metric_says_in_one_line_what_it_is_and_what_it_needs(kind: type[Metric]) -> None:
    assert kind.__doc__
    assert "\n" not in kind.__doc__
    assert kind.needs
    assert all(field.description for field in kind.model_fields.values())


def test_only_what_was_reconstructed_from_prose_is_experimental() -> None:
    assert [name for name, kind in METRICS.items() if kind.experimental] == ["dcrm", "bees"]


def test_ches_of_the_toy_answers() -> None:
    """S+ = (2, 2) of three states, S- = (3, 0) of two: 6 - 8, and 6/6 - 8/9 per token."""
    chosen, rejected = torch.tensor([[2.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    assert ches(chosen, rejected).item() == -2.0
    per_token = ches_per_token(chosen, rejected, torch.tensor([3.0]), torch.tensor([2.0]))
    assert per_token.item() == pytest.approx(1 / 9)


def test_dcrm_of_the_toy_answers() -> None:
    assert edit_distance(list(b"ABCDE"), list(b"ABXDEF")) == 2
    one = distance_calibrated_margin(np.array([1.5]), np.array([2.0]), np.array([0.2]), 1.0)
    assert one[0] == pytest.approx((1 / (1 + math.exp(-1.5)) - 0.5) / 3.2)


def test_the_validation_loss_is_dpos() -> None:
    np.testing.assert_allclose(dpo_loss(0.01, GAP), [0.686668, 0.692647, 0.673347, 0.688657], atol=1e-6)
    assert dpo_loss(1.0, np.array([-1e4]))[0] == pytest.approx(1e4)


def test_a_vote_of_zero_decides_and_contradicting_certainties_count_as_no() -> None:
    np.testing.assert_array_equal(joined(np.array([0.0, 1.0, 0.5]), np.array([0.9, 0.0, 0.5])), [0, 0, 0.5])
    np.testing.assert_array_equal(vote(np.array([3.0, 3.0]), (3.0, 3.0)), [0.5, 0.5])


def test_bounds_that_are_not_given_are_quantiles_of_the_training_pairs() -> None:
    train = np.array([True, True, True, False])
    told = facts(train=train, metrics={"reward_margin": np.array([0.0, 1, 2, 9]), "implicit_margin": np.zeros(4)})
    np.testing.assert_allclose(BeeS(quantiles=(0, 1)).values(told), [0, 0.5, 1, 1])


def test_statistics_are_those_of_the_training_pairs_and_a_constant_margin_says_nothing() -> None:
    train = np.array([True, True, False])
    external, own = np.array([1.0, 3.0, 5.0]), np.array([2.0, 2.0, 7.0])
    np.testing.assert_allclose(alignment_potential(external, own, train), [-1, 1, 3])
