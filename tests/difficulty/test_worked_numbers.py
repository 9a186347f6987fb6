"""Numbers that can be checked by hand, on the four pairs that the objectives' worked numbers use too."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.alignment_potential import AlignmentPotential, alignment_potential
from mixdpo_ray.difficulty.bees import BeeS, joined, vote
from mixdpo_ray.difficulty.ches import CHES, ches, ches_per_token
from mixdpo_ray.difficulty.dcrm import DCRM, distance_calibrated_margin
from mixdpo_ray.difficulty.embedding_distance import EmbeddingDistance
from mixdpo_ray.difficulty.implicit_margin import ImplicitMargin
from mixdpo_ray.difficulty.length import Length
from mixdpo_ray.difficulty.metric import AnswerLogps, Column, Formula, HalfTraining, Metric, MetricInputs, Unseen
from mixdpo_ray.difficulty.perplexity import Perplexity
from mixdpo_ray.difficulty.reward_margin import RewardMargin
from mixdpo_ray.difficulty.table_columns import (
    ChosenLength,
    PromptLength,
    RatingMargin,
    RejectedLength,
    ScoreChosen,
    ScoreRejected,
    TableColumn,
)
from mixdpo_ray.difficulty.validation_loss import ValidationLoss, dpo_loss
from mixdpo_ray.pairs.edit_distance import edit_distance

# pairs:              0      1      2      3
CHOSEN = np.array([-12.5, -20.0, -30.0, -8.0])
REJECTED = np.array([-14.0, -19.0, -45.0, -9.5])
REF_CHOSEN = np.array([-13.0, -20.5, -31.0, -8.4])
REF_REJECTED = np.array([-13.2, -19.4, -42.0, -9.0])
MARGIN = np.array([1.5, 0.0, 5.0, 1.0])
GAP = np.array([1.3, 0.1, 4.0, 0.9])  # (c - rc) - (r - rr)
POLICY, REFERENCE = AnswerLogps(CHOSEN, REJECTED), AnswerLogps(REF_CHOSEN, REF_REJECTED)
EXTERNAL = {"reward_margin": MARGIN, "implicit_margin": GAP}


COLUMNS = {
    "margin": MARGIN,
    "score_chosen": np.array([6.5, 7.0, 9.0, 4.0]),
    "score_rejected": np.array([5.0, 7.0, 4.0, 3.0]),
    "prompt_length": np.full(4, 5.0),
    "chosen_length": np.array([10.0, 16, 24, 6]),
    "rejected_length": np.array([14.0, 12, 30, 8]),
}


def facts(**more: object) -> MetricInputs:
    lengths = {name: column for name, column in COLUMNS.items() if name.endswith("length")}
    given = {"train": np.ones(4, np.bool_), **lengths, **more}
    return MetricInputs(**given)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Worked:
    """The context of pairs whose numbers are all known."""

    known: MetricInputs

    @property
    def train(self) -> NDArray[np.bool_]:
        return self.known.train

    def column(self, name: str) -> Column:
        return COLUMNS[name]

    def inputs(self, metric: Formula) -> MetricInputs:
        return self.known

    def cross_fit(self, training: HalfTraining) -> Sequence[Unseen]:
        """The policy has trained on pair 0 and the reference on pair 1; pairs 2 and 3 are held out."""
        trained = {(1, 2, 3): POLICY, (0, 2, 3): REFERENCE}
        return [
            Unseen(rows, at(rows, logps), at(rows, REFERENCE))
            for _ in training.seeds
            for rows, logps in ((np.array(positions), logps) for positions, logps in trained.items())
        ]


def at(rows: NDArray[np.int64], logps: AnswerLogps) -> AnswerLogps:
    return AnswerLogps(logps.chosen[rows], logps.rejected[rows])


# name -> (settings, what it is told, its values, derived once by hand, or three operations away)
WORKED: dict[str, list[tuple[Metric, MetricInputs, list[float]]]] = {
    "rating_margin": [(RatingMargin(), facts(), [1.5, 0, 5, 1])],
    "score_chosen": [(ScoreChosen(), facts(), [6.5, 7, 9, 4])],
    "score_rejected": [(ScoreRejected(), facts(), [5, 7, 4, 3])],
    "prompt_length": [(PromptLength(), facts(), [-5, -5, -5, -5])],
    "chosen_length": [(ChosenLength(), facts(), [-10, -16, -24, -6])],
    "rejected_length": [(RejectedLength(), facts(), [-14, -12, -30, -8])],
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
    "validation_loss": [
        (  # of pair 1 log(1 + e^-0.1) by the policy; of the held-out ones halfway between that and log 2
            ValidationLoss(beta=1.0, seeds=seeds),
            facts(),
            [-0.693147, -0.644397, -0.355649, -0.517151],
        )
        for seeds in (1, 3)
    ],
}


def test_every_metric_has_worked_numbers() -> None:
    assert set(WORKED) == set(METRICS)


@pytest.mark.parametrize(("name", "number"), [(name, number) for name in WORKED for number in range(len(WORKED[name]))])
def test_a_metric_gives_its_worked_numbers(name: str, number: int) -> None:
    metric, told, expected = WORKED[name][number]
    assert type(metric) is METRICS[name]
    np.testing.assert_allclose(metric.compute(Worked(told)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", METRICS.values(), ids=lambda kind: kind.__name__)
def test_every_metric_says_in_one_line_what_it_is_and_what_it_needs(kind: type[Metric]) -> None:
    assert kind.__doc__
    assert "\n" not in kind.__doc__
    assert kind.needs
    assert all(field.description for field in kind.model_fields.values())


@pytest.mark.parametrize("kind", [kind for kind in METRICS.values() if issubclass(kind, TableColumn)])
def test_a_column_of_the_table_is_higher_for_the_clearer_pair(kind: type[TableColumn]) -> None:
    """Pair 0 of two is clear by every account: rated apart, short. Its own values say so after they are turned."""
    clear, ambiguous = (6.0, 1.0) if not kind.smaller_is_easier else (1.0, 6.0)
    easy, hard = kind.easiness(np.array([clear, ambiguous]))
    assert easy > hard
    assert kind.smaller_is_easier == kind.column.endswith("length")


def test_only_what_trains_needs_room_for_workers() -> None:
    assert [name for name, kind in METRICS.items() if kind.trains] == ["validation_loss"]


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
