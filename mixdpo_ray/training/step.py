"""One optimizer step: forward and backward over this rank's micro-batches, one reduction, one update."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mixdpo_ray.curriculum.plan import StageName
from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.sft_weights import SftNorm, sft_weights
from mixdpo_ray.training.batch import PairBatch
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.logps import MicroLogps
from mixdpo_ray.training.metrics import SUMS, reduce_sums
from mixdpo_ray.training.router_balance import RouterBalance, window_choices
from mixdpo_ray.training.window_shares import WindowTotals
from mixdpo_ray.training.world import World


@dataclass(frozen=True)
class LossWeights:
    """Global denominators of one window. A pair's loss never depends on which rank or micro-step it is in."""

    totals: WindowTotals
    stage: StageName
    sft_norm: SftNorm
    sft_weight: float

    @property
    def easy(self) -> float:
        return 1 / self.totals.pairs

    @property
    def hard(self) -> float:
        """That of SFT. Beside other pairs n_hard / N: none counts for more because it has few of its kind around it."""
        alone = self.stage == "hard" and not self.totals.hard_pairs
        return self.sft_weight * (1.0 if alone else self.totals.hard / self.totals.pairs)


class WindowRouters:
    """The balance of the routers over one window. Of several micro-batches a pass without gradient sees all first."""

    def __init__(self, policy: Policy, balance: RouterBalance, batches: Sequence[PairBatch], world: World):
        self.balance, self.world = balance, world
        self.chosen: Tensor | None = None
        if len(batches) > 1:
            with policy.evaluating():
                self.chosen = window_choices([(policy.routed(one).chosen, one.weight) for one in batches], world)

    def loss(self, batch: PairBatch, logps: MicroLogps) -> Tensor:
        assert logps.routed is not None
        if self.chosen is None:
            self.chosen = window_choices([(logps.routed.chosen, batch.weight)], self.world)
        return self.balance.loss(logps.routed, self.chosen)


def train_step(
    policy: Policy,
    objective: Objective,
    batches: Iterable[PairBatch],
    weights: LossWeights,
    world: World,
    hard_objective: Objective | None = None,
) -> tuple[dict[str, float], float]:
    """Sums over all ranks and the gradient's norm. Raises before the update if a loss or a gradient is not finite.

    `hard_objective`: of the hard pairs that have both answers.
    """
    sums = torch.zeros(len(SUMS), dtype=torch.float64, device=world.torch_device)
    routers = None if policy.balance is None else WindowRouters(policy, policy.balance, batches := list(batches), world)
    for batch, chunks in zip(batches, weights.totals.chunks, strict=True):
        logps = policy.logps(batch, chunks, routed=routers is not None)
        easy = (objective.losses(logps.easy) if batch.easy else logps.easy.chosen).sum()
        hard = logps.hard.chosen.sum()
        if hard_objective is not None and batch.hard_pairs:
            hard = hard_objective.hard_losses(logps.hard).sum()
        sft = -(_sft_weights(logps, weights) * logps.hard_chosen).sum()
        loss, balance = weights.easy * (easy + hard) + weights.hard * sft, easy.new_zeros(())
        if routers is not None:
            router = routers.loss(batch, logps)
            balance = routers.balance.coefficient * router
            sums[SUMS.index("loss/router")] += batch.weight * router.detach()
        # every rank runs every micro-step; a filler's gradient is zero. The mean over ranks is undone
        policy.backward((loss + balance) * batch.weight * world.size)
        with torch.no_grad():  # ranks that share rows know the same of pairs, and each something else of routers
            sums += batch.weight * world.counts * _measures(objective, logps, torch.stack([loss, easy, hard, sft]))
            sums[SUMS.index("loss")] += batch.weight * balance
    reduced = reduce_sums(sums, world)
    if not math.isfinite(reduced["loss"]):
        raise NonFiniteError("the loss is not finite")
    return reduced, policy.update()


def _sft_weights(logps: MicroLogps, weights: LossWeights) -> Tensor:
    return sft_weights(
        logps.hard_length,
        weights.sft_norm,
        window_pairs=max(1, weights.totals.hard),
        window_tokens=max(1, weights.totals.hard_tokens),
        window_micro_batches=max(1, weights.totals.hard_micro_batches),
    )


def _measures(objective: Objective, logps: MicroLogps, losses: Tensor) -> Tensor:
    """Sums of this micro-batch, in the order of metrics.SUMS; of its routers nothing. `losses`: the first four."""
    pairs = logps.easy
    chosen_reward, rejected_reward = objective.rewards(pairs)
    correct = objective.correct(pairs).sum()
    drift = losses.new_zeros(()) if pairs.ref_chosen is None else pairs.chosen_ratio.sum()
    measured = [
        *losses, pairs.chosen.sum() + logps.hard.chosen.sum() + logps.hard_chosen.sum(), pairs.rejected.sum(),
        chosen_reward.sum(), rejected_reward.sum(), correct, drift, losses.new_zeros(()),
    ]  # fmt: skip
    return torch.stack(measured)
