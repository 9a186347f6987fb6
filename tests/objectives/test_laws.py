"""What holds for every preference objective in the table, whatever its formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.alpha_po import AlphaPO
from mixdpo_ray.objectives.aot import AOT
from mixdpo_ray.objectives.beta_dpo import BetaDPO
from mixdpo_ray.objectives.bpo import BPO
from mixdpo_ray.objectives.cpo import CPO
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.dpo_pop import DPOPoP
from mixdpo_ray.objectives.f_dpo import FDPO
from mixdpo_ray.objectives.gamma_dpo import GammaDPO
from mixdpo_ray.objectives.ipo import IPO
from mixdpo_ray.objectives.logps import PairLogps, TokenLogps
from mixdpo_ray.objectives.margin_dpo import MarginDPO
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.sft import SFT
from mixdpo_ray.objectives.slic import SLiC
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective, StepView
from tests.host_waits import HostWaits
from tests.objectives.extremes import Row, drawn

EVERY = [
    *[objective() for objective in OBJECTIVES.values()],
    DPO(beta=0.01),
    IPO(length_norm=False),
    SLiC(length_norm=True),
    CPO(length_norm=False),
    BPO(link="hinge"),
    SFT(both=True),
    AOT(unpaired=True),
    AOT(label_smoothing=0.2),
    *[FDPO(link=link) for link in ("forward_kl", "alpha", "chi")],
    FDPO(link="chi", clip=1.0),
    AlphaPO(alpha=0.0),
    *[MarginDPO(offset=offset) for offset in ("log1p", "tanh", "constant")],
]
# Past their targets, or where a label counts as doubtful, they pull back; SFT on both answers lifts the rejected one
PULLS_BACK = {"cdpo", "ipo", "cal_dpo", "mmpo", "exo", "nca", "sppo", "apo_down", "discopop", "rpo_fwd_kl",
              "rpo_sq"}  # fmt: skip
NAMES = {kind: name for name, kind in OBJECTIVES.items()}
every_objective = pytest.mark.parametrize("objective", EVERY, ids=repr)


def batches(objective: Objective, rows: Sequence[Row]) -> list[Sequence[Row]]:
    """All in one; where pairs feel each other also by one, two and three."""
    small = [rows[first : first + 1 + first // 3 % 3] for first in range(0, len(rows), 3)]
    return [rows, *(small if isinstance(objective, StepObjective) else [])]


def pairs_of(rows: Sequence[Row]) -> PairLogps:
    """Sums, lengths, margin, and reference sums if there are any; all tokens of an answer are equally likely."""
    columns = torch.tensor(rows, dtype=torch.float32).unbind(1)
    chosen, rejected = columns[0].clone().requires_grad_(), columns[1].clone().requires_grad_()
    pairs = PairLogps(chosen, rejected, *columns[2:])  # type: ignore[arg-type]
    if pairs.ref_chosen is None or pairs.ref_rejected is None:
        return pairs
    longest = int(max(pairs.chosen_length.max(), pairs.rejected_length.max()))

    def each(values: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.arange(longest) < length[:, None], (values / length)[:, None], 0.0)

    tokens = TokenLogps(
        each(chosen, pairs.chosen_length),
        each(rejected, pairs.rejected_length),
        each(pairs.ref_chosen, pairs.chosen_length),
        each(pairs.ref_rejected, pairs.rejected_length),
    )
    typical = [mean.detach() + 0.5 for mean in (pairs.chosen_mean, pairs.rejected_mean)]
    return replace(pairs, tokens=tokens, chosen_typicality=typical[0], rejected_typicality=typical[1])


def losses_of(objective: Objective, pairs: PairLogps) -> torch.Tensor:
    return objective.losses(with_step(objective, pairs))


def with_step(objective: Objective, pairs: PairLogps) -> PairLogps:
    """What an objective reads off a whole step, computed as in training: detached, in double precision."""
    if not isinstance(objective, StepObjective):
        return pairs
    columns = {name: value.detach().double() for name, value in vars(pairs).items() if isinstance(value, torch.Tensor)}
    mismatched = torch.tensor([0.3, -0.1], dtype=torch.float64)
    seen, _ = objective.statistics(StepView(PairLogps(**columns), mismatched_ratio=mismatched))  # type: ignore[arg-type]
    return replace(pairs, step={name: value.float() for name, value in seen.items()})


def slopes_of(losses: torch.Tensor, pairs: PairLogps) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(losses.sum(), [pairs.chosen, pairs.rejected], allow_unused=True, materialize_grads=True)


@every_objective
def test_one_loss_and_two_rewards_per_pair(objective: Objective) -> None:
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5, -13.0, -13.2), (-20, -19, 16, 12, 0, -20.5, -19.4)])
    chosen, rejected = objective.rewards(pairs)
    assert losses_of(objective, pairs).shape == chosen.shape == rejected.shape == (2,)


@every_objective
def test_no_micro_step_waits_for_the_device(objective: Objective) -> None:
    pairs = with_step(objective, pairs_of([(-12.5, -14.0, 10, 14, 1.5, -13, -13.2), (-20, -19, 16, 12, 0, -20.5, -19)]))
    with HostWaits() as waits:
        torch.autograd.backward(objective.losses(pairs).sum())
        objective.rewards(pairs)
    assert waits.found == []


@every_objective
def test_training_pulls_the_chosen_answer_up_and_the_rejected_one_down(objective: Objective) -> None:
    """At the start of training, policy equal to reference, a step against the gradient must widen the gap."""
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5, -12.5, -14.0), (-20, -19, 16, 12, 1.0, -20, -19)])
    by_chosen, by_rejected = slopes_of(losses_of(objective, pairs), pairs)
    if NAMES[type(objective)] == "discopop":  # at 0 it blends two losses of which the second is the larger
        assert (by_chosen > 0).all()
        return
    assert (by_chosen <= 0).all()
    assert (by_rejected >= 0).all() or objective == SFT(both=True)
    assert (by_rejected - by_chosen).sum() > 0


@pytest.mark.parametrize(
    "objective",
    [
        one
        for one in EVERY
        if NAMES[type(one)] not in PULLS_BACK and one not in (SFT(both=True), AOT(label_smoothing=0.2))
    ],
    ids=repr,
)
def test_the_direction_is_the_same_everywhere_but_for_losses_with_a_target(objective: Objective) -> None:
    for rows in batches(objective, drawn(120, -60, highest=-0.125, margins=[1.5])):
        pairs = pairs_of(rows)
        slopes = zip(rows, *slopes_of(losses_of(objective, pairs), pairs), strict=True)
        assert [row for row, by_chosen, by_rejected in slopes if by_chosen > 0 or by_rejected < 0] == []


def test_ipo_pulls_back_a_gap_that_is_wider_than_its_target() -> None:
    """Target 1 / (2 x 0.5) = 1; a gap of 3 has loss 4 and slope 2 x (3 - 1) = +4 by the chosen sum."""
    pairs = pairs_of([(-10.0, -17.0, 10, 14, 1.5, -12.0, -16.0)])
    losses = IPO(tau=0.5, length_norm=False).losses(pairs)
    (by_chosen,) = torch.autograd.grad(losses.sum(), [pairs.chosen])
    assert losses.tolist() == [4.0]
    assert by_chosen.tolist() == [4.0]


@every_objective
def test_no_pair_feels_another_unless_its_objective_looks_at_the_step(objective: Objective) -> None:
    """A loss moves nothing but its own pair; the losses of a batch are those of its pairs alone."""
    rows = drawn(20, -1e4)
    batch = pairs_of(rows)
    losses = losses_of(objective, batch)
    for number, loss in enumerate(losses):
        for slope in torch.autograd.grad(
            loss, [batch.chosen, batch.rejected], allow_unused=True, materialize_grads=True, retain_graph=True
        ):
            assert slope.count_nonzero() == slope[number].count_nonzero()
    if not isinstance(objective, StepObjective):
        alone = torch.cat([objective.losses(pairs_of([row])) for row in rows])
        torch.testing.assert_close(losses, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("objective", [one for one in EVERY if isinstance(one, StepObjective)], ids=repr)
def test_what_is_seen_goes_with_the_pairs_when_they_change_places(objective: Objective) -> None:
    """But for those that draw at random: their draws are by place."""
    rows = [(-12.5, -14.0, 10, 14, 1.5, -13.0, -13.2), (-20.0, -19.0, 16, 12, 1.0, -20.75, -19.4)]
    rows += [(-30.0, -45.0, 24, 30, 5.0, -31.0, -42.0), (-8.0, -9.0, 6, 8, 0.5, -8.4, -9.0)]
    if isinstance(objective, DPOPoP | BetaDPO):
        return
    there = losses_of(objective, pairs_of(rows))
    back = losses_of(objective, pairs_of(rows[::-1])).flip(0)
    torch.testing.assert_close(there, back)


@every_objective
def test_losses_rewards_and_slopes_are_finite_over_extreme_inputs(objective: Objective) -> None:
    for rows in batches(objective, drawn(180, -1e4)):
        pairs = pairs_of(rows)
        losses = losses_of(objective, pairs)
        for values in (losses, *objective.rewards(pairs), *slopes_of(losses, pairs)):
            assert [row for row, value in zip(rows, values, strict=True) if not value.isfinite()] == []


@every_objective
@pytest.mark.parametrize("total", [0.0, -1e4])
def test_two_equal_answers_of_one_token_have_a_finite_loss_and_equal_rewards(
    objective: Objective, total: float
) -> None:
    pairs = pairs_of([(total, total, 1, 1, 0.0, total, total)])
    chosen, rejected = objective.rewards(pairs)
    assert losses_of(objective, pairs).isfinite().all()
    assert torch.equal(chosen, rejected)


@every_objective
def test_an_objective_says_truly_whether_it_needs_the_reference(objective: Objective) -> None:
    """Without one no reference is run and no sums arrive: the others must refuse rather than guess."""
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5)])
    if objective.needs_reference:
        with pytest.raises(AssertionError, match="did not declare needs_"):
            losses_of(objective, pairs)
    else:
        assert losses_of(objective, pairs).isfinite().all()


@every_objective
def test_an_objective_says_truly_whether_it_reads_the_margin(objective: Objective) -> None:
    rows = [(-12.5, -14.0, 10, 14, 1.5, -13.0, -13.2), (-20.0, -19.5, 16, 12, 0.5, -20.5, -18.4)]
    other = [(*row[:4], margin, *row[5:]) for row, margin in zip(rows, (0.2, 3.0), strict=True)]
    same = torch.equal(losses_of(objective, pairs_of(rows)), losses_of(objective, pairs_of(other)))
    assert same != (objective.uses_margin and objective != MarginDPO(offset="constant"))


def test_an_objective_without_a_loss_for_ties_says_so() -> None:
    assert [name for name, kind in OBJECTIVES.items() if not kind.takes_ties] == ["odpo"]


def test_earlier_gaps_stand_beside_those_of_a_small_step_and_their_number_is_bounded() -> None:
    objective = GammaDPO(queue=3)
    state: ObjectiveState = {}
    rows = [(-12.5, -14.0, 10, 14, 1.5, -13.0, -13.2), (-20.0, -19.0, 16, 12, 1.0, -20.5, -19.4)]
    for _ in range(3):
        pairs = pairs_of(rows)
        columns = {name: v.detach().double() for name, v in vars(pairs).items() if isinstance(v, torch.Tensor)}
        seen, state = objective.statistics(StepView(PairLogps(**columns), state))  # type: ignore[arg-type]
        assert len(seen["target"]) == 2
    assert state["gaps"].tolist() == pytest.approx([0.01, 0.13, 0.01], abs=1e-6)


def test_rewards_are_beta_times_the_log_ratio_or_the_length_mean() -> None:
    """DPO: 0.1 x (+0.5, -0.8). IPO: 0.1 x (0.5 / 10, -0.8 / 14). SimPO: 2 x (-12.5 / 10, -14 / 14)."""
    pairs = pairs_of([(-12.5, -14.0, 10, 14, 1.5, -13.0, -13.2)])
    rewards = {name: [side.item() for side in OBJECTIVES[name]().rewards(pairs)] for name in ("dpo", "ipo", "simpo")}
    assert rewards["dpo"] == pytest.approx([0.05, -0.08], abs=1e-6)
    assert rewards["ipo"] == pytest.approx([0.005, -0.00571429], abs=1e-6)
    assert rewards["simpo"] == pytest.approx([-2.5, -2.0], abs=1e-6)
