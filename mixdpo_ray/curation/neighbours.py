"""The nearest rows in embedding space: exact, by blocks of a matrix product. Costs rows squared times width."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

COMPARED_AT_ONCE = 2048  # rows that are compared with all at once


@dataclass(frozen=True)
class Nearest:
    """Each row's nearest others, the nearest first: [rows, k] each. No row is its own neighbour."""

    rows: NDArray[np.int64]
    distance: NDArray[np.float64]  # one minus the cosine


def nearest_rows(vectors: NDArray[np.float32], count: int) -> Nearest:
    """`vectors` [rows, width], of any length but 0; equal distances go by the number of the row."""
    count = min(count, len(vectors) - 1)
    units = torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(vectors, np.float32)), dim=-1)
    found, near = [], []
    for first in range(0, len(units), COMPARED_AT_ONCE):
        block = units[first : first + COMPARED_AT_ONCE]
        cosine = block @ units.T
        cosine[torch.arange(len(block)), first + torch.arange(len(block))] = -torch.inf
        best = torch.topk(cosine, count, dim=1)
        found.append(best.indices.numpy())
        near.append(best.values.double().numpy())
    rows, distance = np.concatenate(found), np.maximum(1 - np.concatenate(near), 0.0)
    return Nearest(rows.astype(np.int64), distance)


def rarity(nearest: Nearest) -> NDArray[np.float64]:
    """How alone a row is, 0 to 1, by its mean distance x to its neighbours: 2 / (1 + e^-x) - 1."""
    return np.asarray(2 / (1 + np.exp(-nearest.distance.mean(1))) - 1)


def agreement_of(labels: NDArray[np.int64], nearest: Nearest, count: int = 2) -> tuple[float, float]:
    """How often a row and its nearest others have one label, and how often they would by chance."""
    same = float((labels[nearest.rows[:, :count]] == labels[:, None]).mean())
    shares = np.bincount(labels) / len(labels)
    return same, float((shares**2).sum())
