"""The transition matrix of ratings from what neighbours were rated, without a single true one (HOC, as in DS2).

Answers that lie close in embedding space are taken to have one true class; then how often a row and its two nearest
others are seen in classes j, k and l says what the prior p and T_ij = P(seen j | true i) must be:

    c1 = T' p     c2_jk = sum_i p_i T_ij T_ik     c3_jkl = sum_i p_i T_ij T_ik T_il

The neighbours are other rows: DS2's code doubles the data set, and a copy agrees with its row's noise, which then seems
to be none. Of 50,000 triples of six classes T comes within 0.011, in a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RATE, STEPS = 0.1, 1501
DIAGONAL, ELSEWHERE = 4.0, -1.0  # of the logits of T at the start: 5 I - 1
LARGEST_SAMPLE = 50_000  # triples of a round
MOST_ROUNDS = 50
NEIGHBOURS = 2
MOST_NAMED = 8  # classes: their orders are tried one by one


@dataclass(frozen=True)
class Transition:
    matrix: NDArray[np.float64]  # [K, K], P(seen j | true i)
    prior: NDArray[np.float64]  # [K], of the true classes

    @property
    def seen(self) -> NDArray[np.float64]:
        """The share of each class among what is seen: [K]."""
        return self.prior @ self.matrix

    @property
    def wrong_share(self) -> NDArray[np.float64]:
        """The share of the rows seen in class j whose true class is another one: [K]."""
        return wrong_shares(np.diag(self.matrix), self.prior, self.seen)

    @property
    def posterior(self) -> NDArray[np.float64]:
        """P(true i | seen j): [seen, true]."""
        joint = self.prior[:, None] * self.matrix
        return np.asarray((joint / np.maximum(joint.sum(0), 1e-12)).T)

    @property
    def noise_rate(self) -> float:
        """The share of all rows that are seen in another class than their true one."""
        return float(1 - self.prior @ np.diag(self.matrix))


@dataclass(frozen=True)
class Consensus:
    """How often classes are seen together: of one row, of it and a neighbour, of it and two."""

    one: NDArray[np.float64]  # [K]
    two: NDArray[np.float64]  # [K, K]
    three: NDArray[np.float64]  # [K, K, K]


def wrong_shares(
    diagonal: NDArray[np.float64], prior: NDArray[np.float64], seen: NDArray[np.float64]
) -> NDArray[np.float64]:
    """e_j = 1 - T_jj p_j / c1_j."""
    return np.asarray(np.clip(1 - diagonal * prior / np.maximum(seen, 1e-12), 0.0, 1.0))


def consensus_of(transition: Transition) -> Consensus:
    """What a transition matrix says should be seen."""
    rows, prior = transition.matrix, transition.prior
    return Consensus(
        prior @ rows,
        np.einsum("i,ij,ik->jk", prior, rows, rows),
        np.einsum("i,ij,ik,il->jkl", prior, rows, rows, rows),
    )


def consensus_among(labels: NDArray[np.int64], neighbours: NDArray[np.int64], classes: int) -> Consensus:
    """`labels` [rows]; `neighbours` [sampled rows, 3]: numbers of a row and of its two nearest others."""
    seen = labels[neighbours]
    three = np.zeros((classes,) * 3)
    np.add.at(three, tuple(seen.T), 1.0)
    three /= max(len(seen), 1)
    return Consensus(three.sum((1, 2)), three.sum(2), three)


def fit_transition(consensus: Consensus) -> Transition:
    """Minimise the distances between the shares that are seen and those that T and p would give, by Adam.

    Classes that no row is in would only take part as noise: they must be left out before.
    """
    classes = len(consensus.one)
    wanted = [torch.tensor(part, dtype=torch.float64) for part in (consensus.one, consensus.two, consensus.three)]
    logits = torch.full((classes, classes), ELSEWHERE, dtype=torch.float64)
    logits = (logits + (DIAGONAL - ELSEWHERE) * torch.eye(classes, dtype=torch.float64)).requires_grad_()
    prior = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits, prior], lr=RATE)
    best, kept = np.inf, (logits.detach().clone(), prior.detach().clone())
    for _ in range(STEPS):
        loss = _distance(torch.softmax(logits, 1), torch.softmax(prior, 0), wanted)
        if loss.item() < best:
            best, kept = loss.item(), (logits.detach().clone(), prior.detach().clone())
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
    return named(Transition(torch.softmax(kept[0], 1).numpy(), torch.softmax(kept[1], 0).numpy()))


def named(found: Transition) -> Transition:
    """The true classes in the order in which most rows are rated rightly: the shares do not know their names."""
    classes = range(len(found.prior))
    if len(found.prior) > MOST_NAMED:
        return found
    joint = found.prior[:, None] * found.matrix
    best = max(permutations(classes), key=lambda order: sum(joint[one, seen] for seen, one in enumerate(order)))
    return Transition(found.matrix[list(best)], found.prior[list(best)])


def _distance(matrix: Tensor, prior: Tensor, wanted: list[Tensor]) -> Tensor:
    weighted = prior[:, None] * matrix
    one = weighted.sum(0)
    two = weighted.T @ matrix
    three = torch.einsum("ij,ik,il->jkl", weighted, matrix, matrix)
    parts = [_norm(found - given) for found, given in zip((one, two, three), wanted, strict=True)]
    return parts[0] + parts[1] + parts[2]


def _norm(difference: Tensor) -> Tensor:
    """Euclidean; its slope at 0 is none."""
    return torch.sqrt((difference**2).sum() + 1e-20)


def estimate_transition(
    labels: NDArray[np.int64],
    nearest: NDArray[np.int64],
    classes: int,
    *,
    rounds: int = MOST_ROUNDS,
    seed: int = 0,
    heard: Callable[[int], object] = lambda done: None,
) -> Transition:
    """The mean over rounds, each of a sample of rows; where a sample would hold all rows, one round says it all.

    `nearest` [rows, 2 or more]: the numbers of each row's nearest others, the nearest first.
    """
    triples = np.column_stack([np.arange(len(labels)), nearest[:, :NEIGHBOURS]])
    if len(labels) <= LARGEST_SAMPLE:
        return fit_transition(consensus_among(labels, triples, classes))
    draw = np.random.default_rng(seed)
    found = []
    for number in range(rounds):
        sample = draw.choice(len(labels), LARGEST_SAMPLE, replace=False)
        found.append(fit_transition(consensus_among(labels, triples[sample], classes)))
        heard(number + 1)
    return Transition(np.mean([one.matrix for one in found], axis=0), np.mean([one.prior for one in found], axis=0))
