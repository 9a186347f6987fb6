"""Style features of answers, and win rates at equal style: Arena-Hard's control for length and markdown.

Features of a battle compare the two answers' tokens, headers, list items and bold spans, counted outside fenced code,
and join the logistic fit of its outcome as covariates. The official score subtracts their mean over the pool first:
then the level depends on who else is in the pool, and with one model nothing is controlled. Without that, the score
is what the fit predicts for two answers of one style; arms of one's own are fitted together, each with a level of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixdpo_ray.benchmarks.logistic import FittedWinRate, fitted_together
from mixdpo_ray.benchmarks.resampling import Vector

Control = Literal["length", "markdown", "both"]
_FENCED = re.compile(r"```([^`]*)```")
_HEADERS = re.compile(r"^#{1,6}\s", re.MULTILINE)
_LIST_ITEMS = re.compile(r"^\s*\d+\.\s|^\s*[-*+]\s", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
CONTROLLED: dict[Control, list[int]] = {"length": [0], "markdown": [1, 2, 3], "both": [0, 1, 2, 3]}  # features


def style(answer: str, tokens: float | None = None) -> Vector:
    """Tokens, headers, list items and bold spans. Four characters are a token where the tokens were not counted."""
    prose = _FENCED.sub("", answer)
    marks = [len(pattern.findall(prose)) for pattern in (_HEADERS, _LIST_ITEMS, _BOLD)]
    return np.array([len(answer) / 4 if tokens is None else tokens, *marks], dtype=np.float64)


def relative_counts(model: Vector, baseline: Vector) -> Vector:
    """The features of v0.1, from styles [battles, 4]."""
    return (model - baseline) / (model + baseline + 1)


def relative_densities(model: Vector, baseline: Vector) -> Vector:
    """The features of v2: markdown by token, so that a long answer may have more of it."""
    tokens, others = model[:, :1], baseline[:, :1]
    sums = tokens + others
    length = np.divide(tokens - others, sums, out=np.zeros_like(sums), where=sums > 0)
    mine, theirs = model[:, 1:] / (tokens + 1), baseline[:, 1:] / (others + 1)
    return np.column_stack([length, (mine - theirs) / (mine + theirs + 1)])


StyleFeatures = Callable[[Vector, Vector], Vector]


@dataclass(frozen=True, eq=False)
class StyledBattles:
    """One arm's battles: of each prompt the sum of its outcomes, how many they are, and both styles [4]."""

    outcome: Mapping[str, tuple[float, float]]
    model: Mapping[str, Vector]
    baseline: Mapping[str, Vector]


def style_controlled(
    arms: Mapping[str, StyledBattles], features: StyleFeatures, control: Control = "both", *, centred: bool = False
) -> dict[str, FittedWinRate]:
    """Each arm's win rate at equal style, from one fit; at the pool's mean difference of style where centred."""
    rows = [(number, item) for number, arm in enumerate(arms.values()) for item in sorted(arm.outcome)]
    pool = list(arms.values())
    mine = np.array([pool[number].model[item] for number, item in rows])
    theirs = np.array([pool[number].baseline[item] for number, item in rows])
    sums, weight = np.array([pool[number].outcome[item] for number, item in rows], dtype=np.float64).T
    covariates = _standardised(features(mine, theirs)[:, CONTROLLED[control]], weight, centred)
    return fitted_together(tuple(arms), rows, covariates, sums / weight, weight)


def _standardised(features: Vector, weight: Vector, centred: bool) -> Vector:
    """The features over their deviation in all battles; one that never varies is left out as zeros."""
    mean = np.average(features, axis=0, weights=weight)
    deviation = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weight))
    return (features - mean * centred) / np.where(deviation > 0, deviation, np.inf)
