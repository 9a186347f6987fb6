"""Levenshtein distance of two lists of words or tokens, a row at a time: quadratic, without a Python loop inside."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def edit_distance(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Insertions, deletions and substitutions, each at the price of 1."""
    numbers: dict[Hashable, int] = {}
    rows = [numbers.setdefault(item, len(numbers)) for item in one]
    columns = np.array([numbers.setdefault(item, len(numbers)) for item in other], np.int64)
    steps = np.arange(len(columns) + 1)
    row = steps.copy()  # distances of the empty beginning of `one` to every beginning of `other`
    for number, item in enumerate(rows, 1):
        without_insertions = np.empty_like(row)
        without_insertions[0] = number
        without_insertions[1:] = np.minimum(row[1:] + 1, row[:-1] + (columns != item))
        # inserting from index j to index k costs k - j: the cheapest j is a running minimum
        row = np.minimum.accumulate(without_insertions - steps) + steps
    return int(row[-1])
