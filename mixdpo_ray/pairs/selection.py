"""Which of the checked pairs are trained: rules, applied one after another to what the one before left.

To add one: a class with its settings and a method that marks what it keeps, and its key in SELECTIONS. Rules see
columns, never tokens. Where a cut falls among equal values a seeded hash of the pair id decides, so that what is kept
depends neither on the order of files nor on who reads them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from mixdpo_ray.curriculum.order import easiest_first, seeded_hashes
from mixdpo_ray.curriculum.settings import RATING_MARGIN
from mixdpo_ray.errors import DataError
from mixdpo_ray.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

Mask = NDArray[np.bool_]
TIE = 1e-9  # margins are differences of ratings: equal ratings may differ in the last bit
SAMPLE_SALT = 1 << 40  # a sample must not follow the hash that breaks ties


@dataclass(frozen=True)
class Selectable:
    """Pairs as rules see them."""

    columns: Mapping[str, NDArray[np.float64]]  # metric -> [pairs], as people know its values
    pair_id: pa.ChunkedArray
    smaller_is_easier: frozenset[str] = frozenset()  # of the metrics

    def __len__(self) -> int:
        return len(self.pair_id)

    def __getitem__(self, rows: NDArray[np.int64]) -> Selectable:
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Selectable(columns, self.pair_id.take(rows), self.smaller_is_easier)

    def easiest_first(self, metric: str, seed: int) -> NDArray[np.int64]:
        sign = -1 if metric in self.smaller_is_easier else 1
        return easiest_first(sign * self.columns[metric], self.pair_id, seed)

    def first(self, rows: NDArray[np.int64]) -> Mask:
        """The mask of these row numbers."""
        mask = np.zeros(len(self), np.bool_)
        mask[rows] = True
        return mask


class Selection(Settings):
    """A rule. The base has no settings: each rule has its own."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Columns that it reads."""
        metric = getattr(self, "metric", None)
        return (metric,) if metric else ()

    @abstractmethod
    def keeps(self, pairs: Selectable) -> Mask:
        """The mask [pairs] of what stays."""


class _Share(Selection):
    """So many pairs, or a share of those that are there."""

    fraction: float | None = Field(None, gt=0, le=1, description="This share of the pairs that are there")
    count: int | None = Field(None, ge=1, description="This many pairs")
    seed: int = Field(42, ge=0, description="Decides among equal ones, by a hash of the pair's content")

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if (self.fraction is None) == (self.count is None):
            raise ValueError("give fraction or count, and not both" if self.count else "give fraction or count")
        return self

    def amount(self, pairs: int) -> int:
        if self.count is not None and self.count > pairs:
            raise DataError(
                f"data.select: {name_of(self)} asks for {self.count} pairs, and {pairs} are there: ask for fewer"
            )
        return self.count if self.count is not None else round((self.fraction or 0) * pairs)


class Easiest(_Share):
    metric: str = Field(RATING_MARGIN, description="The metric that pairs are compared by")

    def keeps(self, pairs: Selectable) -> Mask:
        return pairs.first(pairs.easiest_first(self.metric, self.seed)[: self.amount(len(pairs))])


class Hardest(_Share):
    metric: str = Field(RATING_MARGIN, description="The metric that pairs are compared by")

    def keeps(self, pairs: Selectable) -> Mask:
        return pairs.first(pairs.easiest_first(self.metric, self.seed)[::-1][: self.amount(len(pairs))])


class Sample(_Share):
    """Pairs drawn at random."""

    def keeps(self, pairs: Selectable) -> Mask:
        lot = np.argsort(seeded_hashes(pairs.pair_id, self.seed + SAMPLE_SALT), kind="stable")
        return pairs.first(lot[: self.amount(len(pairs))])


class Quantiles(Selection):
    """A range of ranks: 0 is the hardest pair, 1 the easiest."""

    metric: str = Field(RATING_MARGIN, description="The metric that pairs are ranked by")
    low: float = Field(0.0, ge=0, lt=1, description="Share of the pairs, the hardest, that are left out")
    high: float = Field(1.0, gt=0, le=1, description="Share of the pairs at which the easiest begin that are left out")
    seed: int = Field(42, ge=0, description="Decides among equal ones, by a hash of the pair's content")

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.low >= self.high or (self.low, self.high) == (0, 1):
            raise ValueError(f"low {self.low:g} to high {self.high:g} keeps {'nothing' if self.low else 'everything'}")
        return self

    def keeps(self, pairs: Selectable) -> Mask:
        hardest_first = pairs.easiest_first(self.metric, self.seed)[::-1]
        low, high = (round(edge * len(pairs)) for edge in (self.low, self.high))
        return pairs.first(hardest_first[low:high])


TIERS = ("hard", "medium", "easy")


class Tier(Selection):
    """A third of the pairs, by rank."""

    tier: Literal["hard", "medium", "easy"] = Field(description="Which third")
    metric: str = Field(RATING_MARGIN, description="The metric that pairs are ranked by")
    sample: int | None = Field(None, ge=1, description="Keep this many of the tier, drawn by a hash; none keeps all")
    seed: int = Field(42, ge=0, description="Decides among equal ones and draws the sample")

    def keeps(self, pairs: Selectable) -> Mask:
        hardest_first = pairs.easiest_first(self.metric, self.seed)[::-1]
        number = TIERS.index(self.tier)
        low, high = (len(pairs) * edge // len(TIERS) for edge in (number, number + 1))
        rows = np.sort(hardest_first[low:high])
        if self.sample is None:
            return pairs.first(rows)
        return pairs.first(rows[Sample(count=self.sample, seed=self.seed).keeps(pairs[rows])])


class Ties(Selection):
    """Pairs whose answers were rated alike, those with the best or the worst ratings (appendix B.4)."""

    quality: Literal["high", "low"] | None = Field(None, description="The best or the worst rated; none keeps all ties")
    count: int | None = Field(None, ge=1, description="This many of them")
    seed: int = Field(42, ge=0, description="Decides among equal ones, by a hash of the pair's content")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.quality is None) != (self.count is None):
            raise ValueError("quality and count belong together: give both, or none to keep all ties")
        return self

    @property
    def metrics(self) -> tuple[str, ...]:
        return (RATING_MARGIN, "score_chosen") if self.quality else (RATING_MARGIN,)

    def keeps(self, pairs: Selectable) -> Mask:
        tied = np.flatnonzero(np.abs(pairs.columns[RATING_MARGIN]) <= TIE)
        if self.quality is None:
            return pairs.first(tied)
        rule = {"high": Easiest, "low": Hardest}[self.quality]
        return pairs.first(tied[rule(metric="score_chosen", count=self.count, seed=self.seed).keeps(pairs[tied])])


class Values(Selection):
    metric: str = Field(description="The metric, in its own values")
    at_least: float | None = Field(None, description="Smaller values are left out")
    at_most: float | None = Field(None, description="Larger values are left out")

    @model_validator(mode="after")
    def _a_range(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is above at_most {self.at_most:g}: nothing would be kept")
        return self

    def keeps(self, pairs: Selectable) -> Mask:
        values = pairs.columns[self.metric]
        low = -np.inf if self.at_least is None else self.at_least
        high = np.inf if self.at_most is None else self.at_most
        return np.asarray((values >= low - TIE) & (values <= high + TIE))


SELECTIONS: dict[str, type[Selection]] = {
    "easiest": Easiest,
    "hardest": Hardest,
    "sample": Sample,
    "quantiles": Quantiles,
    "tier": Tier,
    "ties": Ties,
    "values": Values,
}


def name_of(rule: Selection) -> str:
    return next(name for name, kind in SELECTIONS.items() if type(rule) is kind)


def _pick(rules: object) -> object:
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise ValueError("write a list of rules, such as [{keep: easiest, fraction: 0.5}]")
    return tuple(rule if isinstance(rule, Selection) else _pick_one(rule) for rule in rules)


def _pick_one(rule: object) -> Selection:
    settings = dict(rule) if isinstance(rule, Mapping) else {}
    name = settings.pop("keep", None)
    if name not in SELECTIONS:
        raise ValueError(f"keep {name!r} is no rule: write {{keep: ..., ...}} with one of {', '.join(SELECTIONS)}")
    return SELECTIONS[name].model_validate(settings)


def _to_dicts(rules: Iterable[Selection]) -> list[dict[str, Any]]:
    return [{"keep": name_of(rule), **rule.model_dump(mode="json")} for rule in rules]


Rules = Annotated[tuple[Selection, ...], BeforeValidator(_pick), PlainSerializer(_to_dicts)]


@dataclass(frozen=True)
class Selected:
    rows: NDArray[np.int64]  # kept, ascending
    left_out_by: NDArray[np.int64]  # [pairs] number of the rule; -1 where a pair is kept
    left: tuple[int, ...]  # pairs after each rule


def select(rules: Sequence[Selection], pairs: Selectable) -> Selected:
    rows, left = np.arange(len(pairs)), []
    left_out_by = np.full(len(pairs), -1)
    for number, rule in enumerate(rules):
        here = pairs[rows]
        _check_known(rule, here)
        kept = rule.keeps(here)
        left_out_by[rows[~kept]] = number
        rows = rows[kept]
        left.append(len(rows))
    return Selected(rows, left_out_by, tuple(left))


def _check_known(rule: Selection, pairs: Selectable) -> None:
    for metric in rule.metrics:
        unknown = int(np.isnan(pairs.columns[metric]).sum())
        if unknown:
            raise DataError(
                f"data.select: {name_of(rule)} compares by {metric}, which {unknown} of {len(pairs)} pairs lack: take "
                "another metric"
            )
