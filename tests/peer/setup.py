"""What both sides are given, and what they leave; without a library of either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Row = dict[str, list[int]]  # prompt_ids, chosen_ids, rejected_ids


@dataclass(frozen=True)
class Setup:
    """What both sides are given."""

    model: Path
    rows: Sequence[Row]
    learning_rate: float
    global_batch: int
    per_device: int
    steps: int
    beta: float = 0.1
    dtype: Literal["bfloat16", "float32"] = "float32"  # bfloat16: TRL keeps float32 weights and computes in it
    device: str = "cpu"


@dataclass
class Record:
    """What a run left: the loss of each optimizer step, and when it ended."""

    losses: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
