"""Which sequences of a micro-batch are padded together. The index alone tells, so this knows no tensors."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

RowKind = Literal["packed", "grouped", "together"]  # without padding; padded by length; padded in one group
PASS = 256  # what another pass through the model costs on a CPU, in tokens


def row_kind(*, packed: bool, gpu: bool, zero_stage: int = 0) -> RowKind:
    """How the pairs of a micro-batch lie. In groups a rank may run more passes than another, and ZeRO-3 forbids that;
    a GPU waits longer for another pass to be launched than for padding.
    """
    if packed:
        return "packed"
    return "together" if gpu or zero_stage == 3 else "grouped"


def length_groups(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Row numbers of each group, longest first: the cut with the least padding, where a pass counts as PASS tokens."""
    order = np.argsort(-lengths, kind="stable")
    width, count = lengths[order], len(lengths)
    cheapest, end = np.zeros(count + 1), np.zeros(count, np.int64)
    for first in reversed(range(count)):
        costs = PASS + width[first] * np.arange(1, count - first + 1) + cheapest[first + 1 :]
        end[first] = first + 1 + int(costs.argmin())
        cheapest[first] = costs.min()
    groups, first = [], 0
    while first < count:
        groups.append(order[first : end[first]])
        first = int(end[first])
    return groups
