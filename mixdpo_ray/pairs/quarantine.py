"""The refused rows: file, row and reason, never their text; and how many of them are too many."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mixdpo_ray import storage
from mixdpo_ray.errors import QuarantineError, TooFewPairsError
from mixdpo_ray.pairs.convert import Refusal

QUARANTINE = "quarantine.jsonl"
NOT_AT_FAULT = ("heldout_is_full", "not_selected", "tie_not_augmented")  # nothing is wrong with these rows
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
        return cls(tuple(Refusal(**json.loads(line)) for line in lines))

    def write(self, path: str) -> None:
        lines = [json.dumps({"file": r.file, "row": r.row, "reason": r.reason}) + "\n" for r in self.refusals]
        storage.write_bytes(path, "".join(lines).encode())

    @property
    def counts(self) -> dict[str, int]:
        return dict(Counter(refusal.reason for refusal in self.refusals).most_common())

    def at_fault(self) -> list[Refusal]:
        return [refusal for refusal in self.refusals if refusal.reason not in NOT_AT_FAULT]


def within_budget(quarantined: Mapping[str, int], rows_in: int, limit: float) -> bool:
    return sum(count for reason, count in quarantined.items() if reason not in NOT_AT_FAULT) <= limit * rows_in


def over_budget(quarantine: Quarantine, rows_in: int, limit: float, path: str) -> QuarantineError:
    """Names the first offenders by file and row, the reasons by number, and where all of them are."""
    bad = quarantine.at_fault()
    reasons = ", ".join(f"{count} {reason}" for reason, count in Counter(r.reason for r in bad).most_common())
    first = ", ".join(f"{refusal.file} row {refusal.row} ({refusal.reason})" for refusal in bad[:NAMED])
    return QuarantineError(
        f"{len(bad)} of {rows_in} rows were refused, {len(bad) / rows_in:.1%}; data.max_quarantined_fraction allows "
        f"{limit:.1%}: {reasons}; the first: {first}; all: {path}; correct the source or raise the limit"
    )


def check_enough(pairs: int, quarantined: Mapping[str, int], batch: int) -> None:
    if pairs >= batch:
        return
    refused = ", ".join(f"{count} {reason}" for reason, count in quarantined.items()) or "none"
    raise TooFewPairsError(
        f"{pairs or 'no'} pairs are left to train on, fewer than train.global_batch_size {batch} (refused: {refused}): "
        "give more pairs or lower the batch size"
    )
