"""What each round came to, as its round.json keeps it: tables, the page and the picture are drawn from these alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Self

from mixdpo_ray import storage
from mixdpo_ray.errors import StorageError
from mixdpo_ray.iteration.round_judge import JudgedAgainst

EVEN = 0.5  # win rate of a model over its like


@dataclass(frozen=True)
class RoundPairs:
    """What a round trained on, and how its own answers were rated."""

    prompts: int
    answers: int
    ratings: Mapping[str, float]  # mean of each rater over all answers
    trained: int
    held_out: int
    ties: int  # of the trained pairs, those of equal rating
    margins: tuple[float, float, float]  # of the trained pairs: quartiles
    quarantined: Mapping[str, int] = field(default_factory=dict)  # prompts by reason


@dataclass(frozen=True)
class RatedRound:
    """A round's answers and their ratings, as they were when its training began: what a judge failed to rate would be
    asked again by a command that goes on, and other pairs are another training.
    """

    asked: str  # names what was asked
    file: str
    prompts: int
    answers: int
    ratings: Mapping[str, float]  # mean of each rater
    quarantined: Mapping[str, int]

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def read(cls, path: str, asked: str) -> Self | None:
        """None where there is none, or something else was asked."""
        if not storage.exists(path):
            return None
        found = cls(**json.loads(storage.read_bytes(path)))
        return found if found.asked == asked and storage.exists(found.file) else None


@dataclass(frozen=True)
class RoundResult:
    number: int
    begins_with: str  # names the weights
    model: str  # folder of what the round made
    pairs: RoundPairs
    over_last: JudgedAgainst
    over_first: JudgedAgainst
    length: float  # of the round's answers to the judged prompts, in characters
    first_length: float  # of those of the first model
    judge: str
    steps: int
    accuracy: float | None = None  # of held-out pairs, after
    seconds: float = 0.0

    @property
    def gains(self) -> bool:
        """Whether another round follows. The win rate decides, not its interval: where prompts are few, an interval
        would end a loop that still gains, and what the doubt is stands beside it.
        """
        return self.over_last.win_rate > EVEN

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes, path: str) -> Self:
        try:
            read: Self = _round_reader().validate_python(json.loads(content))
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise StorageError(f"{path} is damaged ({reason}): remove it, and the same command makes it anew") from None
        return read


def best_round(rounds: Sequence[RoundResult]) -> int:
    """The round of the highest win rate over the first model, of those that beat the one before; 0: the first model.

    A model may win a little over the last one and less than that one over the first.
    """
    gained = [one for one in rounds if one.gains]
    return max(gained, key=lambda one: (one.over_first.win_rate, one.number)).number if gained else 0


@cache
def _round_reader() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(RoundResult)
