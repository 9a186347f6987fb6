"""Several raters' ratings as one score for each answer, and how far the raters agree.

Raters have scales of their own, so that raw ratings are never averaged: each is compared with the mean that its rater
gives to the same prompt. `pooled` divides that by the rater's spread within prompts, over all of them, and keeps how
much better an answer is; `zscore` divides by the spread within the one prompt, after which a hair's breadth between two
answers is as wide as the world; `rank` knows the order alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.difficulty.correlations import mean_ranks, spearman

Ratings = NDArray[np.float64]  # [answers], NaN where there is none
Groups = Sequence[slice]  # the answers to each prompt


@dataclass(frozen=True)
class CombinedRatings:
    scores: Ratings
    widths: Ratings | None  # [answers], spread of the raters' opinions; of one rater nobody knows it
    disagree: frozenset[int]  # groups whose best and worst answers the raters do not agree on


def combined(ratings: Sequence[Ratings], groups: Groups, how: str, scale: str) -> CombinedRatings:
    if len(ratings) == 1:
        return CombinedRatings(ratings[0], None, frozenset())
    rated = np.isfinite(np.stack(ratings)).all(0)
    opinions = np.stack([on_one_scale(np.where(rated, one, np.nan), groups, scale) for one in ratings])
    scores = np.median(opinions, 0) if how == "median" else opinions.mean(0)
    against = set()
    for number, group in enumerate(groups):
        if how == "agreement" and np.isfinite(scores[group]).any():
            best, worst = np.nanargmax(scores[group]), np.nanargmin(scores[group])
            if (opinions[:, group][:, best] <= opinions[:, group][:, worst]).any():
                against.add(number)
    return CombinedRatings(scores, opinions.std(0), frozenset(against))


def on_one_scale(ratings: Ratings, groups: Groups, scale: str) -> Ratings:
    """Ratings on a scale that all raters share."""
    found = np.full(len(ratings), np.nan)
    for group in groups:
        here = np.isfinite(ratings[group])
        if here.any():
            found[group][here] = _within(ratings[group][here], scale)
    if scale == "pooled":
        spread = np.sqrt(np.nanmean(found**2)) if np.isfinite(found).any() else 0.0
        return found / spread if spread > 0 else found
    return found


def _within(ratings: Ratings, scale: str) -> Ratings:
    if scale == "rank":
        ranks: Ratings = (mean_ranks(ratings) - 1) / max(1, len(ratings) - 1)
        return ranks if len(set(ratings.tolist())) > 1 else np.full(len(ratings), 0.5)
    centred: Ratings = ratings - ratings.mean()
    spread = centred.std()
    return centred / spread if scale == "zscore" and spread > 0 else centred


@dataclass(frozen=True)
class RaterAgreement:
    """How two raters order every two answers to one prompt that both have rated."""

    pairs: int
    accuracy: float  # share that both put in the same order; where one sees a tie, half
    correlation: float  # of ranks, of what each gives an answer beyond its prompt's mean


def agreement(one: Ratings, other: Ratings, groups: Groups) -> RaterAgreement:
    same, pairs = 0.0, 0
    for group in groups:
        signs = []
        for ratings in (one[group], other[group]):
            signs.append(np.sign(ratings[:, None] - ratings[None, :])[np.triu_indices(len(ratings), 1)])
        rated = np.isfinite(signs[0]) & np.isfinite(signs[1])
        product = (signs[0] * signs[1])[rated]
        both_tie = (signs[0][rated] == 0) & (signs[1][rated] == 0)
        same += float((0.5 + product / 2).sum() + both_tie.sum() / 2)
        pairs += int(rated.sum())
    rated = np.isfinite(one) & np.isfinite(other)
    columns = {
        name: on_one_scale(np.where(rated, ratings, np.nan), groups, "pooled")[rated]
        for name, ratings in (("one", one), ("other", other))
    }
    correlation = float(spearman(columns)[0, 1]) if rated.any() else float("nan")
    return RaterAgreement(pairs, same / pairs if pairs else float("nan"), correlation)


def ties(ratings: Ratings, groups: Groups) -> tuple[int, int]:
    """How many of every two rated answers to one prompt are rated alike, and how many there are."""
    alike = pairs = 0
    for group in groups:
        rated = ratings[group][np.isfinite(ratings[group])]
        _, counts = np.unique(rated, return_counts=True)
        alike += int((counts * (counts - 1) // 2).sum())
        pairs += len(rated) * (len(rated) - 1) // 2
    return alike, pairs
