"""What a check comes to. Its text is what was found; a red one says what to change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mixdpo_ray.errors import MixDPOError

State = Literal["green", "yellow", "red", "unchecked"]


@dataclass(frozen=True)
class Finding:
    check: str
    state: State
    text: str


@dataclass(frozen=True)
class Caution:
    """Returned by a check: the job will run, and a person should know this."""

    text: str


class CheckFailed(MixDPOError):  # noqa: N818 what a person sees is the colour
    pass


class Unchecked(Exception):  # noqa: N818 it is no error
    """Raised by a check that cannot be made, with the reason."""


def counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"
