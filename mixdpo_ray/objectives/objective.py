"""What every preference objective is: frozen settings and one method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from pydantic import field_validator

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor
from mixdpo_ray.settings import Settings

LARGEST = 3e38  # of a 32-bit number: beyond it a setting times an answer's log-prob is no number, not even at the start
Ranges = Mapping[str, Mapping[str, Sequence[float]]]


class Objective(Settings, ABC):
    """The first line of a docstring is the objective's line in the README."""

    needs_reference: ClassVar[bool] = True
    needs_tokens: ClassVar[bool] = False  # log-probs of single tokens, of the policy and of the reference
    needs_typicality: ClassVar[bool] = False  # how likely the policy is to write the answers (logps.py)
    uses_margin: ClassVar[bool] = False  # reads the pair's rating margin
    takes_ties: ClassVar[bool] = True  # whether a margin of 0 has a loss
    experimental: ClassVar[bool] = False  # the formula was reconstructed: its authors published no code
    search: ClassVar[Ranges] = {}  # its hyperparameters' ranges, as in tune.space

    @field_validator("*")
    @classmethod
    def _is_a_32_bit_number(cls, value: object) -> object:
        if isinstance(value, float) and abs(value) > LARGEST:
            raise ValueError("it is too large for a loss in 32-bit numbers: give a smaller one")
        return value

    def with_noise_rate(self, rate: float | None) -> Self:
        """The same with the share of flipped labels that curating estimates, where it is asked to take that."""
        return self

    @abstractmethod
    def losses(self, pairs: PairLogps) -> Tensor:
        """One loss per pair, unreduced: [pairs]."""

    def hard_losses(self, pairs: PairLogps) -> Tensor:
        """One loss per hard pair, as `curriculum.hard_objective`: that of a tie where the objective knows ties."""
        return self.losses(pairs)

    @abstractmethod
    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        """The implicit rewards of the chosen and the rejected answers, for metrics: [pairs] each."""

    def correct(self, pairs: PairLogps) -> Tensor:
        """Preference accuracy of each pair, a half for ties: 1 where the chosen answer has the higher reward.

        Before training policy and reference are the same, and what rounding makes of that is a tie.
        """
        chosen, rejected = self.rewards(pairs.unrounded if self.needs_reference else pairs)
        return (chosen > rejected).float() + 0.5 * (chosen == rejected).float()
