"""What a setting may be in a search: {kind: arguments}, one of

choice: [a, b] or {a: {...}, b: {...}}   one of these; with braces, each brings further ranges that exist only then
uniform: [low, high]                     loguniform: [low, high]
integer: [low, high]                     quantised: [low, high, step]
margins: share                           a margin of the prepared data that leaves at most this share of pairs hard

To add a kind: a class with what a Range can do, and its key in KINDS.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mixdpo_ray.wording import did_you_mean

if TYPE_CHECKING:
    import optuna

Value = Any  # what YAML gives: a number, a string, true or false, or none


class Range(ABC):
    @abstractmethod
    def suggest(self, trial: optuna.Trial, name: str) -> Value: ...

    @abstractmethod
    def corners(self) -> tuple[Value, ...]:
        """All of a choice, the ends of an interval: if they work, what lies between works."""

    @abstractmethod
    def holds(self, value: Value) -> bool: ...

    def probes(self) -> tuple[Value, ...]:
        """Values that a recipe must accept for the range to be of its setting's type."""
        return self.corners()

    def values(self) -> tuple[Value, ...] | None:
        """All of them, where they can be counted."""
        return None


@dataclass(frozen=True)
class Choice(Range):
    options: tuple[Value, ...]
    branches: Mapping[Value, Mapping[str, Any]] = field(default_factory=dict)  # option -> a space of its own

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        return trial.suggest_categorical(name, self.options)

    def corners(self) -> tuple[Value, ...]:
        return self.options

    def holds(self, value: Value) -> bool:
        return value in self.options

    def values(self) -> tuple[Value, ...]:
        return self.options


@dataclass(frozen=True)
class Interval(Range):
    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        value = trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)
        return value if self.step is None else self._rounded(value)

    def corners(self) -> tuple[Value, ...]:
        return self.low, self.high

    def probes(self) -> tuple[Value, ...]:
        between = self.step or (self.high - self.low) / math.pi  # never whole, as a drawn number is not
        return (*self.corners(), self.low + between)

    def holds(self, value: Value) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or math.isclose(value, self._rounded(value), abs_tol=1e-9)

    def values(self) -> tuple[Value, ...] | None:
        if self.step is None:
            return None
        return tuple(self._rounded(self.low + number * self.step) for number in range(self._steps + 1))

    @property
    def _steps(self) -> int:
        assert self.step is not None
        return round((self.high - self.low) / self.step)

    def _rounded(self, value: float) -> float:
        """Round a value to the grid: sums of binary fractions would give thresholds such as 0.30000000000000004."""
        assert self.step is not None
        return round(self.low + round((value - self.low) / self.step) * self.step, 12)


@dataclass(frozen=True)
class Integer(Range):
    low: int
    high: int

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        return trial.suggest_int(name, self.low, self.high)

    def corners(self) -> tuple[Value, ...]:
        return self.low, self.high

    def holds(self, value: Value) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def values(self) -> tuple[Value, ...]:
        return tuple(range(self.low, self.high + 1))


@dataclass(frozen=True)
class Margins(Range):
    """Not known before the data are prepared; see margins.py, which makes it a Choice or an Interval."""

    hard_share: float

    def suggest(self, trial: optuna.Trial, name: str) -> Value:
        raise AssertionError("margins are resolved before anything is drawn")

    def corners(self) -> tuple[Value, ...]:
        return (0.0,)

    def holds(self, value: Value) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)


def read_range(setting: str, written: Any) -> Range:
    """ValueErrors begin with the setting's name."""
    if not isinstance(written, Mapping) or len(written) != 1:
        raise ValueError(f"{setting}: {written!r} is no range; write {{kind: ...}} with one of {', '.join(KINDS)}")
    ((kind, arguments),) = written.items()
    if kind not in KINDS:
        raise ValueError(f"{setting}: unknown kind of range {kind!r}; {did_you_mean(str(kind), KINDS)}")
    try:
        return KINDS[kind](arguments)
    except ValueError as error:
        raise ValueError(f"{setting}: {kind} {arguments!r}: {error}") from None


def _choice(options: Any) -> Range:
    if isinstance(options, Mapping) and options:
        branches = {option: {} if inner is None else inner for option, inner in options.items()}
        for option, inner in branches.items():
            if not isinstance(inner, Mapping):
                raise ValueError(f"{option} {inner!r}: give the ranges that exist under it, or nothing")
            for setting, written in inner.items():
                read_range(setting, written)
        return Choice(tuple(branches), branches)
    if not isinstance(options, list | tuple) or not options or any(isinstance(one, list | dict) for one in options):
        raise ValueError("give a list of single values")
    if len(set(options)) < len(options):
        raise ValueError("a value is given twice")
    return Choice(tuple(options))


def _uniform(ends: Any) -> Range:
    low, high = _numbers(ends, 2)
    return Interval(low, high)


def _loguniform(ends: Any) -> Range:
    low, high = _numbers(ends, 2)
    if low <= 0:
        raise ValueError("a logarithm needs ends above 0")
    return Interval(low, high, log=True)


def _integer(ends: Any) -> Range:
    low, high = _numbers(ends, 2)
    if low % 1 or high % 1:
        raise ValueError("the ends must be whole numbers")
    return Integer(int(low), int(high))


def _quantised(arguments: Any) -> Range:
    low, high, step = _numbers(arguments, 3)
    if step <= 0 or step > high - low:
        raise ValueError("the step must be above 0 and fit between the ends")
    if abs((high - low) / step - round((high - low) / step)) > 1e-9:
        raise ValueError("the ends must lie a whole number of steps apart")
    return Interval(low, high, step=step)


def _margins(share: Any) -> Range:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError("give the largest share of hard pairs, above 0 and at most 1")
    return Margins(float(share))


def _numbers(given: Any, count: int) -> tuple[float, ...]:
    names = "[low, high]" if count == 2 else "[low, high, step]"
    if not isinstance(given, list | tuple) or len(given) != count:
        raise ValueError(f"give {names}")
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one) for one in given):
        raise ValueError("give numbers")
    if given[0] >= given[1]:
        raise ValueError("it is empty: low must be below high")
    return tuple(float(one) for one in given)


KINDS = {
    "choice": _choice,
    "uniform": _uniform,
    "loguniform": _loguniform,
    "integer": _integer,
    "quantised": _quantised,
    "margins": _margins,
}
