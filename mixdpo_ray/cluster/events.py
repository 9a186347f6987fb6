"""What workers tell the run's actor, and what it hands on to a display. The actor imports this file: it is light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Event:
    job: str | int | None = field(default=None, kw_only=True)  # whose it is, where an actor hears of several jobs


@dataclass(frozen=True)
class StepTaken(Event):
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class Evaluated(Event):
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class CheckpointSaved(Event):
    seconds: float  # that training waited for it


@dataclass(frozen=True)
class PhaseBegan(Event):
    text: str


@dataclass(frozen=True)
class Noted(Event):
    """What should stay on the screen."""

    text: str


@dataclass(frozen=True)
class Warned(Event):
    text: str
    once: bool = False  # all jobs of an actor would say the same


@dataclass(frozen=True)
class JobEnded(Event):
    """The summary of a training, or the reason why there will be none."""

    summary: Mapping[str, Any] | None = None
    failure: str = ""
