"""The refused rows: file, row, reason and its meaning, never their text; and how many of them are too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from mixdpo_ray import storage
from mixdpo_ray.errors import QuarantineError, TooFewPairsError
from mixdpo_ray.pairs.causes import causes_text, reasons_text, row_read_again
from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.pairs.settings import TRAIN_SOURCE, SourceSettings

QUARANTINE = "quarantine.jsonl"
NOT_AT_FAULT = (
    "heldout_is_full",
    "sft_is_full",
    "not_selected",
    "left_out_by_weight",
    "curated_away",
    "tie_not_augmented",
)  # nothing is wrong with these rows
NAMED = 5


@dataclass(frozen=True)
class Quarantine:
    refusals: tuple[Refusal, ...]  # by file and row

    @classmethod
    def of(cls, refusals: Iterable[Refusal]) -> Quarantine:
        return cls(tuple(sorted(refusals, key=lambda refusal: (refusal.file, refusal.row, refusal.reason))))

    @classmethod
    def read(cls, path: str) -> Quarantine:
        lines = storage.read_bytes(path).decode("utf-8", "surrogateescape").splitlines()
        known = map(json.loads, lines)
        return cls(
            tuple(Refusal(one["file"], one["row"], one["reason"], one.get("source", TRAIN_SOURCE)) for one in known)
        )

    def write(self, path: str) -> None:
        lines = [
            json.dumps(
                {"file": one.file, "row": one.row, "reason": one.reason, "meaning": REASONS[one.reason]}
                | ({} if one.setting == TRAIN_SOURCE else {"source": one.setting})
            )
            for one in self.refusals
        ]
        storage.write_bytes(path, "".join(f"{line}\n" for line in lines).encode())

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(refusal.reason for refusal in self.refusals).most_common())

    def of_source(self, setting: str) -> Quarantine:
        return Quarantine(tuple(one for one in self.refusals if one.setting == setting))

    def at_fault(self) -> list[Refusal]:
        return [refusal for refusal in self.refusals if refusal.reason not in NOT_AT_FAULT]


def within_budget(quarantined: Mapping[str, int], rows_in: int, limit: float) -> bool:
    return sum(count for reason, count in quarantined.items() if reason not in NOT_AT_FAULT) <= limit * rows_in


def over_budget(
    quarantine: Quarantine, rows_in: int, source: SourceSettings, path: str, setting: str = TRAIN_SOURCE
) -> QuarantineError:
    """Names the first offenders by file and row, the reasons in sentences, and where all of them are."""
    bad, limit = quarantine.at_fault(), source.max_quarantined_fraction
    reasons = causes_text(bad, lambda one: row_read_again(one, source.max_row_bytes), source.columns)
    files = groupby(bad[:NAMED], key=lambda refusal: refusal.file)
    mixed = len({refusal.reason for refusal in bad}) > 1
    first = "; ".join(
        f"{file} row {', '.join(f'{one.row} ({one.reason})' if mixed else f'{one.row}' for one in rows)}"
        for file, rows in files
    )
    return QuarantineError(
        f"{len(bad)} of {rows_in} rows were refused, {len(bad) / rows_in:.1%}; "
        f"{setting}.max_quarantined_fraction allows {limit:.1%}: {reasons.replace(TRAIN_SOURCE, setting)}; "
        f"the first: {first}; all: {path}; correct the source or raise the limit"
    )


def check_enough_rows(rows: int, quarantined: Mapping[str, int]) -> None:
    if not rows:
        refused = reasons_text(quarantined) or "none"
        raise TooFewPairsError(f"no row of data.sft.source is left (refused: {refused}): give others, or leave it out")


def check_enough(pairs: int, quarantined: Mapping[str, int], batch: int) -> None:
    if pairs >= batch:
        return
    refused = reasons_text(quarantined) or "none"
    raise TooFewPairsError(
        f"{pairs or 'no'} pairs are left to train on, fewer than train.global_batch_size {batch} (refused: {refused}): "
        "give more pairs or lower the batch size"
    )
