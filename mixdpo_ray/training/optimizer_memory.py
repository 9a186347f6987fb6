"""Bytes that an optimizer keeps, and takes while it updates, by arithmetic.

AdamW keeps 8 bytes of a trained weight, in 8 bits 2 and two float32 scales a block of 256. Muon keeps 4 of a weight in
a matrix and AdamW's 8 of the others. An update of Muon needs up to four float32 copies of the largest matrix, n by m,
and four of n by n; one in 8 bits needs nothing on a GPU, and on a CPU the float32 moments and three copies more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from mixdpo_ray.training.settings import OptimizerName

SCALED_TOGETHER = 256  # weights whose moments in 8 bits share a scale


@dataclass(frozen=True)
class Matrices:
    """Those that Muon moves: weights in all of them, and the sides of the largest one."""

    weights: int = 0
    rows: int = 0
    columns: int = 0
    largest: int = 0  # weights of the largest parameter, embeddings included

    @classmethod
    def of(cls, model: Any) -> Matrices:
        tables = [id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)]
        output = model.get_output_embeddings()
        told = {*tables, *([] if output is None else [id(output.weight)])}
        shapes = [one.shape for one in model.parameters() if one.dim() in (2, 3) and id(one) not in told]
        rows, columns = max((tuple(shape[-2:]) for shape in shapes), key=lambda sides: sides[0] * sides[1])
        largest = max(parameter.numel() for parameter in model.parameters())
        return cls(sum(shape.numel() for shape in shapes), rows, columns, largest)


def moment_bytes(trained: int, matrices: Matrices, optimizer: OptimizerName) -> int:
    if optimizer == "adamw_8bit":
        return 2 * trained + 8 * trained // SCALED_TOGETHER
    return 8 * trained - (4 * matrices.weights if optimizer == "muon" else 0)


def update_bytes(together: int, matrices: Matrices, optimizer: OptimizerName, *, gpu: bool) -> int:
    """`together`: weights that a worker updates at once."""
    if optimizer == "muon":
        return 16 * (matrices.rows * matrices.columns + min(matrices.rows, matrices.columns) ** 2)
    return 0 if gpu or optimizer == "adamw" else 20 * together
