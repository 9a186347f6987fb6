"""What a person should know of ratings before a model learns from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixdpo_ray.raters.rater import UNRATED
from mixdpo_ray.rating.combine import RaterAgreement


@dataclass(frozen=True)
class RaterSummary:
    rated: int
    mean: float
    spread: float  # standard deviation over all answers
    lowest: float
    highest: float
    ties: int  # of two answers to one prompt
    compared: int
    missing: Mapping[str, int]  # by reason

    def describe(self) -> str:
        shares = f"; {100 * self.ties / self.compared:.1f} % of comparisons tie" if self.compared else ""
        range_ = f"mean {self.mean:.4g}, spread {self.spread:.4g}, from {self.lowest:.4g} to {self.highest:.4g}"
        lost = "".join(f"; {count} without: {reason} ({UNRATED[reason]})" for reason, count in self.missing.items())
        return f"{self.rated:,} ratings: {range_}{shares}{lost}"


@dataclass(frozen=True)
class RateReport:
    origin: str
    file: str
    picture: str
    quarantine: str  # its file, if any
    pairs: bool
    prompts: int  # or pairs; with those that could not be read
    kept: int
    answers: int
    margins: Sequence[float]  # best minus worst; of pairs chosen minus rejected
    against: int  # pairs whose rejected answer is rated higher
    quarantined: Mapping[str, int]  # reason -> prompts
    raters: Mapping[str, RaterSummary]
    agreements: Mapping[tuple[str, str], RaterAgreement]

    def describe(self) -> str:
        what = "pairs" if self.pairs else "prompts"
        return "\n".join(
            [
                f"{self.answers:,} answers of {self.prompts:,} {what} rated, {self.kept:,} {what} kept: {self.origin}",
                *(f"{name}: {summary.describe()}" for name, summary in self.raters.items()),
                *self._agreements(),
                *self._margins(),
                *(f"refused: {count} {reason} ({UNRATED[reason]})" for reason, count in self.quarantined.items()),
                *([f"refused rows: {self.quarantine}"] if self.quarantine else []),
                f"ratings: {self.file}",
                f"picture: {self.picture}",
                f"to train on them: data.source.path={self.file} data.source.format="
                f"{'plain' if self.pairs else 'rated_answers'}",
            ]
        )

    def _agreements(self) -> Iterator[str]:
        for (one, other), found in self.agreements.items():
            yield (
                f"{one} and {other} order {100 * found.accuracy:.1f} % of {found.pairs:,} comparisons alike; rank "
                f"correlation {found.correlation:.2f}"
            )

    def _margins(self) -> Iterator[str]:
        if self.margins:
            low, middle, high = np.quantile(self.margins, (0.1, 0.5, 0.9)).tolist()
            between = "chosen and rejected" if self.pairs else "best and worst"
            yield f"margins between {between}: median {middle:.4g}, a tenth below {low:.4g}, a tenth above {high:.4g}"
        if self.against:
            yield (
                f"warning: {self.against:,} of {self.kept:,} pairs are rated against their order: kept as they are; "
                "data.negative_margin (error, swap, drop, hard) decides about them"
            )
