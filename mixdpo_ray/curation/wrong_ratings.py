"""Which ratings are wrong, by the votes of their neighbours (SimiFeat), and what they should have been.

An epoch looks at a sample of rows. The nearest others in it vote for their own class, with weight 1 - distance; within
each class as many rows are marked as the transition matrix says are wrong, those with the smallest vote for their own.
What is marked in most of its epochs is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.curation.neighbours import Nearest

EPOCHS, VOTERS = 51, 10
EPOCH_SHARE = 0.5  # share of the rows that an epoch looks at
LEAST_WRONG, MOST_WRONG = 0.05, 0.95  # e_j is cut to this range
HALF = 0.5


@dataclass(frozen=True)
class Verdicts:
    """One of each row: [rows] each."""

    wrong: NDArray[np.bool_]  # marked in more than half of its epochs
    suggested: NDArray[np.int64]  # the class that its neighbours are for, in most of its epochs
    marked_share: NDArray[np.float64]  # (marked + 1) / (looked at + 2)
    confidence: NDArray[np.float64]  # that share times the suggestion's: from 0.5 on it is taken


def votes_of(
    labels: NDArray[np.int64], nearest: Nearest, classes: int, sample: NDArray[np.int64], voters: int = VOTERS
) -> NDArray[np.float64]:
    """The normalised votes for each class of the nearest others within a sample: [sample, K]."""
    inside = np.zeros(len(labels), np.bool_)
    inside[sample] = True
    near = nearest.rows[sample]
    counts = inside[near]
    counts &= np.cumsum(counts, axis=1) <= voters
    weights = np.where(counts, np.maximum(1 - nearest.distance[sample], 0.0), 0.0)
    votes = np.zeros((len(sample), classes))
    for label in range(classes):
        votes[:, label] = np.where(labels[near] == label, weights, 0.0).sum(1)
    return np.asarray(votes / np.maximum(votes.sum(1, keepdims=True), 1e-12))


def marked_rows(
    labels: NDArray[np.int64], own_votes: NDArray[np.float64], shares: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Those with the smallest votes for their own class, in each class the share that is wrong."""
    marked = []
    for label, share in enumerate(shares.tolist()):
        members = np.flatnonzero(labels == label)
        count = round(share * len(members))
        marked.append(members[np.argsort(own_votes[members], kind="stable")[:count]])
    return np.concatenate(marked)


def find_wrong(
    labels: NDArray[np.int64],
    nearest: Nearest,
    wrong_share: NDArray[np.float64],
    *,
    epochs: int = EPOCHS,
    voters: int = VOTERS,
    sampled: float = EPOCH_SHARE,
    seed: int = 0,
) -> Verdicts:
    """`wrong_share` [K]: e_j, the share of each seen class that is wrong. `nearest`: more of them than voters."""
    classes, rows = len(wrong_share), len(labels)
    shares = np.clip(wrong_share, LEAST_WRONG, MOST_WRONG)
    looked_at, marked = np.zeros(rows), np.zeros(rows)
    suggestions = np.zeros((rows, classes))
    draw = np.random.default_rng(seed)
    for _ in range(epochs):
        sample = np.sort(draw.choice(rows, max(1, round(sampled * rows)), replace=False))
        votes = votes_of(labels, nearest, classes, sample, voters)
        found = marked_rows(labels[sample], votes[np.arange(len(sample)), labels[sample]], shares)
        looked_at[sample] += 1
        marked[sample[found]] += 1
        suggestions[sample[found], votes[found].argmax(1)] += 1
    share = (marked + 1) / (looked_at + 2)
    suggested = np.where(suggestions.sum(1) > 0, suggestions.argmax(1), labels)
    support = (suggestions[np.arange(rows), suggested] + 1) / (suggestions.sum(1) + classes)
    return Verdicts(share > HALF, suggested, share, np.where(suggested == labels, 0.0, share * support))
