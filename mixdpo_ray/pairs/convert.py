"""Raw rows to token rows: format, check, tokenise. Every candidate pair ends as a kept row or as a refusal."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import pyarrow as pa

from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.augment import reward_augmented
from mixdpo_ray.pairs.checking import FATAL, REASONS, check_pair, is_fatal
from mixdpo_ray.pairs.formats import FORMATS, map_columns
from mixdpo_ray.pairs.margin_scale import resolve_scale
from mixdpo_ray.pairs.pair import Candidate, Pair
from mixdpo_ray.pairs.reading import RawRow
from mixdpo_ray.pairs.settings import TRAIN_SOURCE, DataSettings
from mixdpo_ray.pairs.tokens import EncodedPair, PairTokenizer

CONVERT_ROWS = 256  # pairs in one call of the tokenizer
NAMED_ROWS = 3

CONVERTED_SCHEMA = pa.schema(
    {
        "pair_id": pa.string(),
        "prompt_id": pa.string(),
        "prompt_ids": pa.list_(pa.int32()),
        "chosen_ids": pa.list_(pa.int32()),
        "rejected_ids": pa.list_(pa.int32()),
        "score_chosen": pa.float64(),
        "score_rejected": pa.float64(),
        "margin": pa.float64(),
        "source": pa.string(),
        "file": pa.string(),
        "row": pa.int64(),
        "candidate": pa.int32(),
        "rater_margins": pa.list_(pa.float64()),  # null where there are not several raters
        "chosen_runs": pa.list_(pa.int32()),  # null where all of an answer is the assistant's
        "rejected_runs": pa.list_(pa.int32()),
    }
)


@dataclass(frozen=True)
class Origin:
    """The row that a candidate pair came from; of a group of rows, the first one."""

    file: str
    row: int
    candidate: int = 0


@dataclass(frozen=True)
class Refusal:
    file: str
    row: int
    reason: str  # a key of checking.REASONS
    setting: str = TRAIN_SOURCE  # that names the source, where a table is made of several


@dataclass(frozen=True)
class Conversion:
    kept: pa.Table  # CONVERTED_SCHEMA
    refused: list[Refusal]
    notes: Counter[str]  # what policies changed in kept pairs

    @property
    def rows_in(self) -> int:
        return len(self.kept) + len(self.refused)


class Converter:
    """Picklable and without state: the same rows give the same result wherever and in whatever portions they come.

    For a format with group_by, all rows of a group_key must come in one call.
    """

    def __init__(self, data: DataSettings, format_name: str, tokenizer: Any, mixed: str | None = None) -> None:
        """`mixed`: the name of the source in a mix, which its pairs are of whatever their rows say."""
        self.format, self.mixed = FORMATS[format_name], mixed
        self.data = resolve_scale(data, self.format)
        self.tokens = PairTokenizer(tokenizer, self.data)

    def convert(self, rows: Iterable[RawRow]) -> Conversion:
        pairs, refused = self.checked(rows)
        kept: list[dict[str, Any]] = []
        notes: Counter[str] = Counter()
        for origin, pair, encoded in self._encoded(pairs):
            if isinstance(encoded, EncodedPair):
                kept.append(_row(origin, pair, encoded))
                notes.update([*pair.notes, *encoded.notes])
            else:
                refused.append(Refusal(origin.file, origin.row, encoded))
        self._stop_if_fatal(refused, len(kept) + len(refused))
        return Conversion(pa.Table.from_pylist(kept, CONVERTED_SCHEMA), refused, notes)

    def checked(self, rows: Iterable[RawRow]) -> tuple[list[tuple[Origin, Pair]], list[Refusal]]:
        """The pairs before they are tokenised, and what is refused that early."""
        refused: list[Refusal] = []
        pairs: list[tuple[Origin, Pair]] = []
        for origin, candidate in self._candidates(rows):
            made = self._made_of(candidate)
            if isinstance(made, str):
                refused.append(Refusal(origin.file, origin.row, made))
                continue
            # an origin names one pair: copies of a candidate are counted on from it
            pairs += (
                (replace(origin, candidate=len(made) * origin.candidate + n), pair) for n, pair in enumerate(made)
            )
        return pairs, refused

    def group_key(self, raw: RawRow) -> str:
        """Rows with equal keys are one group; without group_by, and where a row cannot be read, each row is its own."""
        if self.format.group_by is None or raw.value is None:
            return _key(raw.file, str(raw.row))
        return _key(repr(map_columns(raw.value, self.data.source.columns).get(self.format.group_by)))

    def _candidates(self, rows: Iterable[RawRow]) -> Iterator[tuple[Origin, Candidate | str]]:
        for group in self._groups(rows):
            first = group[0]
            if first.value is None:
                yield Origin(first.file, first.row), first.reason or "corrupt_line"
                continue
            values = [map_columns(raw.value, self.data.source.columns) for raw in group if raw.value is not None]
            for number, found in enumerate(self.format.pairs(values, self.data.pair)):
                yield Origin(first.file, first.row, number), found

    def _made_of(self, candidate: Candidate | str) -> list[Pair] | str:
        if isinstance(candidate, Candidate) and self.mixed is not None:
            candidate = replace(candidate, source=self.mixed)
        pair = check_pair(candidate, self.data) if isinstance(candidate, Candidate) else candidate
        if isinstance(pair, str):
            return pair
        return reward_augmented(pair) if self.data.pair.augment else [pair]

    def _groups(self, rows: Iterable[RawRow]) -> Iterable[Sequence[RawRow]]:
        if self.format.group_by is None:
            return ([raw] for raw in rows)
        groups: dict[str, list[RawRow]] = {}
        for raw in rows:
            groups.setdefault(self.group_key(raw), []).append(raw)
        return [sorted(group, key=lambda raw: (raw.file, raw.row)) for group in groups.values()]

    def _encoded(self, pairs: list[tuple[Origin, Pair]]) -> Iterator[tuple[Origin, Pair, EncodedPair | str]]:
        for start in range(0, len(pairs), CONVERT_ROWS):
            batch = pairs[start : start + CONVERT_ROWS]
            for (origin, pair), encoded in zip(
                batch, self.tokens.encode_many([pair for _, pair in batch]), strict=True
            ):
                yield origin, pair, encoded

    def _stop_if_fatal(self, refused: Sequence[Refusal], rows: int) -> None:
        """Name the first such rows of those read together, and how many there are: one at a time takes all day."""
        fatal = [refusal for refusal in refused if is_fatal(refusal.reason, self.data)]
        if not fatal:
            return
        reason = fatal[0].reason
        alike = [refusal for refusal in fatal if refusal.reason == reason]
        where = ", ".join(f"{refusal.file} row {refusal.row}" for refusal in alike[:NAMED_ROWS])
        first = "" if len(alike) <= NAMED_ROWS else ", and more"
        count = "" if len(alike) == 1 else f" ({len(alike)} of the {rows} rows read)"
        setting, value = FATAL[reason]
        swapped = "are the columns of the two answers the wrong way round? Else " if len(alike) > rows / 2 else ""
        others = [one for one in get_args(DataSettings.model_fields[setting].annotation) if one != value]
        raise DataError(
            f"{where}{first}{count}: {REASONS[reason]}; {swapped if reason == 'negative_margin' else ''}"
            f"correct the row{'' if len(alike) == 1 else 's'}, or choose data.{setting} {' or '.join(others)}"
        )


def _row(origin: Origin, pair: Pair, encoded: EncodedPair) -> dict[str, Any]:
    return {
        "pair_id": pair.pair_id,
        "prompt_id": pair.prompt_id,
        "prompt_ids": encoded.prompt_ids,
        "chosen_ids": encoded.chosen_ids,
        "rejected_ids": encoded.rejected_ids,
        "score_chosen": pair.score_chosen,
        "score_rejected": pair.score_rejected,
        "margin": pair.margin,
        "source": pair.source,
        "file": origin.file,
        "row": origin.row,
        "candidate": origin.candidate,
        "rater_margins": pair.rater_margins or None,
        "chosen_runs": encoded.chosen_runs,
        "rejected_runs": encoded.rejected_runs,
    }


def _key(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:32]
