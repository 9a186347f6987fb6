"""Muon: momentum made orthogonal, for the matrices inside a model; AdamW for everything else.

A matrix moves by rate x 0.2 sqrt(longer side) x O, where O is the nearest orthogonal matrix to its momentum: a step as
large as AdamW's, so that one learning rate and one weight decay suit both (Moonlight, arXiv 2502.16982). Gradients
arrive averaged and clipped, as AdamW's do; orthogonal steps are the same at any scale of them, so clipping only bounds
what one step puts into the momentum.

The engine flattens weights and gives every rank a piece. A matrix inside one piece is moved there; one that is cut is
put together on one rank at a time, in turn, and what that rank computes is sent to all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

WHOLE_AT_ONCE = 1 << 26  # elements of cut matrices that a rank holds whole at a time; one matrix may have more
ROUNDS_OF_SCHULZ = 5  # of Newton and Schulz; after five the singular values lie between about 0.7 and 1.2


@dataclass(frozen=True)
class Piece:
    """What a rank holds of one matrix: `numel` elements from `offset` on, at `start` of its flat parameter."""

    shape: tuple[int, ...]
    start: int
    offset: int
    numel: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def whole(self) -> bool:
        return self.numel == self.size


class Muon(torch.optim.Optimizer):
    """`ratio`: the rate of matrices, as a share of AdamW's."""

    def __init__(
        self,
        matrices: Sequence[Tensor],
        adamw: torch.optim.AdamW | None,
        rate: float,
        ratio: float,
        *,
        momentum: float,
        decay: float,
    ):
        own = {"params": list(matrices), "lr": rate * ratio, "rate_ratio": ratio, "weight_decay": decay}
        rest = [] if adamw is None else [{**group, "matrices": False} for group in adamw.param_groups]
        super().__init__([{**own, "matrices": True, "momentum": momentum}, *rest], {})
        self._adamw = adamw
        self._pieces: dict[int, list[tuple[Piece, bool]]] = {}  # with whether any rank holds it cut
        self._orthogonal: Callable[[Tensor], Tensor] | None = None
        self._device = torch.device("cpu")

    def attach(
        self, flat: Sequence[tuple[Tensor, Sequence[Piece]]], orthogonal: Callable[..., Tensor], device: torch.device
    ) -> None:
        """Collective. What the engine made of the matrices; `device`: where they are put together."""
        self._device = device
        self._orthogonal = lambda matrix: orthogonal(matrix, steps=ROUNDS_OF_SCHULZ)
        mine = [list(pieces) for _, pieces in flat]
        everyone: list[Any] = [mine] * dist.get_world_size()
        dist.all_gather_object(everyone, mine)
        for number, (parameter, pieces) in enumerate(flat):
            held = zip(*(of_rank[number] for of_rank in everyone), strict=True)
            cut = [any(piece.numel and not piece.whole for piece in of_matrix) for of_matrix in held]
            self._pieces[id(parameter)] = list(zip(pieces, cut, strict=True))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            if group["matrices"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group)
        if self._adamw is not None:
            self._adamw.param_groups = [group for group in self.param_groups if not group["matrices"]]
            self._adamw.state = self.state
            self._adamw.step()

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        if self._orthogonal is None:  # an engine steps once without gradients, for moments to be there
            return
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        direction = gradient.lerp_(momentum, group["momentum"])  # Nesterov's, where the gradient was
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        if parameter.dim() > 1:
            self._add(parameter, self._made_orthogonal(direction), group["lr"])
            return
        pieces = self._pieces[id(parameter)]
        for piece, cut in pieces:
            if not cut and piece.numel:
                own = slice(piece.start, piece.start + piece.numel)
                step = self._made_orthogonal(direction[own].view(piece.shape))
                self._add(parameter[own].view(piece.shape), step, group["lr"])
        for together in _rounds([piece for piece, cut in pieces if cut]):
            self._move_cut(parameter, direction, together, group["lr"])

    def _move_cut(self, parameter: Tensor, direction: Tensor, together: Sequence[Piece], rate: float) -> None:
        """Collective. Each of these matrices is made orthogonal by one rank."""
        wholes = [torch.zeros(piece.size, dtype=direction.dtype, device=self._device) for piece in together]
        for owner, (piece, whole) in enumerate(zip(together, wholes, strict=True)):
            if piece.numel:
                held = direction[piece.start : piece.start + piece.numel]
                whole[piece.offset : piece.offset + piece.numel] = held.to(self._device)
            dist.reduce(whole, dst=owner)
        for owner, (piece, whole) in enumerate(zip(together, wholes, strict=True)):
            if owner == dist.get_rank():
                whole.copy_(self._made_orthogonal(whole.view(piece.shape)).flatten())
        for owner, (piece, whole) in enumerate(zip(together, wholes, strict=True)):
            dist.broadcast(whole, src=owner)
            if piece.numel:
                own = parameter[piece.start : piece.start + piece.numel]
                step = whole[piece.offset : piece.offset + piece.numel]
                own.add_(step.to(own.device), alpha=-rate)

    def _made_orthogonal(self, matrix: Tensor) -> Tensor:
        """The nearest orthogonal matrix, at the size of AdamW's steps."""
        assert self._orthogonal is not None
        made = self._orthogonal(matrix.to(self._device))
        return made.to(torch.float32) * (0.2 * math.sqrt(max(matrix.shape[-2:])))

    def _add(self, parameter: Tensor, step: Tensor, rate: float) -> None:
        parameter.add_(step.to(parameter.device), alpha=-rate)


def _rounds(cut: Sequence[Piece]) -> Iterator[list[Piece]]:
    """Matrices for one rank each, the first one for rank 0."""
    together: list[Piece] = []
    for piece in cut:
        full = len(together) == dist.get_world_size() or sum(one.size for one in together) + piece.size > WHOLE_AT_ONCE
        if together and full:
            yield together
            together = []
        together.append(piece)
    if together:
        yield together
