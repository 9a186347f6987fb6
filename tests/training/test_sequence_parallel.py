"""Rows that ranks run together, a slice each: what one rank alone computes, from less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.training.gang import Gang
from tests.training.test_gradients import MIXED, difference, gradient, naive_gradient, plain_job

PACKED: dict[str, Any] = {"curriculum": {"mode": "router", "sft_weight": 0.7}, "model": {"packing": True}}


@pytest.mark.parametrize("zero_stage", [0, 2, 3])
@pytest.mark.parametrize("step", [MIXED, 3, 0], ids=["mixed", "hard", "easy"])
def test_ranks_that_share_rows_give_the_gradient_of_the_naive_sum(
    tiny: Path, two: Gang, four: Gang, step: int, zero_stage: int
) -> None:
    """Rows of odd numbers of tokens; all ranks share every row, or two by two; on four, two ranks have the same key."""
    loss, truth = naive_gradient(plain_job(tiny, 1, **PACKED), step)
    for gang, ranks in ((two, 2), (four, 2), (four, 4)):
        job = plain_job(tiny, 3, zero_stage=zero_stage, sequence_parallel=ranks, **PACKED)
        found = gang(gradient, job, step)
        assert all(sums["loss"] == pytest.approx(loss, rel=1e-5) for sums, _, _ in found)
        assert difference(found[0][2], truth) < 1e-5
