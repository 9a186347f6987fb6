"""The held-out pairs: preference accuracy, margins of reward, and drift, overall and per bucket of rating margin.

Every pair is run with both answers, hard ones too. The set is the same for every trial of a search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.curriculum.shares import PassSize, Share, deal
from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective, StepView
from mixdpo_ray.tables.index import Index
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.batch import PairBatch, References, TokenRows, build_batch
from mixdpo_ray.training.engine import Policy
from mixdpo_ray.training.metric_names import BY_BUCKET, EDGES, MEASURES, bucket_name, set_and_metric
from mixdpo_ray.training.step_statistics import gathered, statistics_of, step_pairs
from mixdpo_ray.training.window_shares import chunk_counts, index_lengths
from mixdpo_ray.training.world import World

ACCURACY, DRIFT = "rewards/accuracies", "logps/chosen_drift"


@dataclass(frozen=True)
class HeldOut:
    """This rank's share of the held-out pairs, read once."""

    tokens: TokenRows
    share: Share
    chunks: tuple[int, ...]
    bucket: NDArray[np.int64]  # [pairs of the split]
    hard: NDArray[np.bool_]  # [pairs of the split] by the same boundary as in training
    index: Index
    references: References | None


def read_held_out(
    table: PreparedTable,
    world: World,
    per_device: PassSize,
    chunk_tokens: int,
    boundary: float,
    references: str | None,
    members: range,
    *,
    tokens: bool = False,
    packed: bool = False,
) -> HeldOut:
    """The pairs of one set. `members`: positions in the held-out split; `boundary`: difficulties up to it are hard."""
    index = table.index("eval").part(members)
    positions = np.arange(len(index))
    lengths, both = index_lengths(index, positions), np.zeros(len(index), np.bool_)
    shares = deal(lengths, both, world.shares, per_device, packed=packed)
    mine = np.unique(np.concatenate([micro.rows for micro in shares[world.share]]))
    return HeldOut(
        tokens=TokenRows.of(table.read("eval", mine + members.start), mine),
        share=shares[world.share],
        chunks=chunk_counts(both, lengths, shares, chunk_tokens),
        bucket=np.maximum(np.searchsorted(EDGES, index.margin, side="right") - 1, 0),
        hard=index.difficulty <= boundary,
        index=index,
        references=References.of(references, index, tokens=tokens) if references else None,
    )


def hard_boundary(plan: Plan, index: Index) -> float:
    """The largest difficulty that is hard in training; of a swapped or shuffled order, the one at the same rank."""
    count = int(np.count_nonzero(plan.hard))
    return float(np.partition(index.difficulty, count - 1)[count - 1]) if count else -np.inf


@dataclass(frozen=True)
class Evaluation:
    held_out: HeldOut
    values: NDArray[np.float64]  # [pairs of the split, MEASURES]

    @property
    def metrics(self) -> dict[str, float]:
        """Means by name, which begins with eval_; of margins and drift also the deviation over pairs."""
        has_reference = self.held_out.references is not None
        found = _named(self.values, self.held_out, has_reference=has_reference)
        return {name: float(value) for name, value in found.items()}

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What each pair came to, for HeldOutPairs."""
        columns: dict[str, NDArray[Any]] = dict(zip(MEASURES, self.values.T, strict=True))
        columns["nll/chosen"] = columns.pop("sft")
        if self.held_out.references is None:
            del columns["logps/chosen_drift"], columns["logps/rejected_drift"]
        columns["bucket"] = np.array([bucket_name(number) for number in self.held_out.bucket])
        return {**columns, "hard": self.held_out.hard}


def evaluate_held_out(policy: Policy, objective: Objective, held_out: HeldOut, world: World) -> Evaluation:
    """Collective. The same on every rank."""
    found = torch.zeros(len(held_out.index), len(MEASURES), dtype=torch.float64, device=world.torch_device)
    with policy.evaluating():
        for micro, pairs in zip(held_out.share, _pairs(policy, objective, held_out, world), strict=True):
            rows = torch.from_numpy(micro.rows.astype(np.int64)).to(found.device)
            found.index_add_(0, rows, micro.weight * world.counts * _values(objective, pairs))  # a filler adds nothing
    if world.size > 1:
        dist.all_reduce(found)
    return Evaluation(held_out, found.cpu().numpy())


def refuse_not_finite(metrics: Mapping[str, float], step: int, objective: Objective) -> None:
    """Before the first step the learning rate has changed nothing yet: the model or the loss itself is to blame."""
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if not bad:
        return
    if step:
        raise NonFiniteError(f"evaluation after {step} steps: {bad[0]} is not finite; look at the learning rate")
    of_model = next((name for name in bad if set_and_metric(name)[1].startswith(("eval_logps", "eval_nll"))), None)
    blamed = f"the settings of the objective, {objective!r}"
    if of_model is not None:
        blamed = "the model's weights, model.dtype, and the reference model if it is another one"
    raise NonFiniteError(f"evaluation before the first step: {of_model or bad[0]} is not finite; look at {blamed}")


def _batch(held_out: HeldOut, rows: NDArray[np.int64], weight: int, policy: Policy, world: World) -> PairBatch:
    return build_batch(
        held_out.tokens,
        rows,
        np.zeros(len(rows), np.bool_),
        held_out.references,
        weight=weight,
        padding=policy.padding,
        device=world.torch_device,
        rows=policy.rows,
        row_slice=world.row_slice,
    )


def _pairs(policy: Policy, objective: Objective, held_out: HeldOut, world: World) -> list[PairLogps]:
    """Log-probs per micro-batch. What an objective reads off a step it reads off all held-out pairs, and forgets."""
    found = []
    for micro, chunks in zip(held_out.share, held_out.chunks, strict=True):
        batch = _batch(held_out, micro.rows, micro.weight, policy, world)
        found.append(policy.logps(batch, chunks).easy)
    if not isinstance(objective, StepObjective):
        return found
    rows = [micro.rows for micro in held_out.share]
    sums = [torch.stack([pairs.chosen, pairs.rejected]) for pairs in found]
    everything = gathered(sums, rows, held_out.share, len(held_out.index), world)
    whole = step_pairs(everything, held_out.index, np.arange(len(held_out.index)), held_out.references)
    told, _ = objective.statistics(StepView(whole, policy.objective_state))
    return [replace(pairs, step=statistics_of(told, mine, world)) for pairs, mine in zip(found, rows, strict=True)]


def _values(objective: Objective, pairs: PairLogps) -> Tensor:
    chosen, rejected = objective.rewards(pairs)
    none = torch.zeros_like(chosen)
    columns = [
        objective.losses(pairs), pairs.chosen, pairs.rejected, chosen, rejected,
        objective.correct(pairs),
        none if pairs.ref_chosen is None else pairs.chosen_ratio,
        none if pairs.ref_rejected is None else pairs.rejected - pairs.ref_rejected,
        -pairs.chosen / pairs.chosen_length,
    ]  # fmt: skip
    return torch.stack(columns, 1).double()


def _named(values: NDArray[np.float64], held_out: HeldOut, *, has_reference: bool) -> dict[str, float]:
    metrics = {f"eval_{name}": mean for name, mean in _means(values, has_reference=has_reference).items()}
    for group, loss, mask in (("easy", "loss", ~held_out.hard), ("hard", "sft", held_out.hard)):
        if mask.any():
            metrics[f"eval_loss/{group}"] = values[mask, MEASURES.index(loss)].mean()
            metrics[f"eval_rewards/accuracies/{group}"] = values[mask, MEASURES.index("rewards/accuracies")].mean()
    for number in range(len(EDGES)):
        if count := int(np.count_nonzero(held_out.bucket == number)):
            where = bucket_name(number)
            means = _means(values[held_out.bucket == number], has_reference=has_reference)
            for name in BY_BUCKET:
                if name in means:
                    metrics[f"eval_{name}/{where}"] = means[name]
            metrics[f"eval_pairs/{where}"] = count
    return {**metrics, **_deviations(values, has_reference=has_reference)}


def _deviations(values: NDArray[np.float64], *, has_reference: bool) -> dict[str, float]:
    """Standard deviations over pairs: what a mean's sampling error follows from. Of an accuracy the mean says it."""
    if len(values) < 2:
        return {}
    column = dict(zip(MEASURES, values.T, strict=True))
    found = {"eval_std/rewards/margins": (column["rewards/chosen"] - column["rewards/rejected"]).std(ddof=1)}
    if has_reference:
        found["eval_std/logps/chosen_drift"] = column["logps/chosen_drift"].std(ddof=1)
    return found


def _means(values: NDArray[np.float64], *, has_reference: bool) -> dict[str, float]:
    means = dict(zip(MEASURES, values.mean(0), strict=True))
    sft = means.pop("sft")
    means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    means["nll/chosen"] = sft
    if not has_reference:
        del means["logps/chosen_drift"], means["logps/rejected_drift"]
    return means
