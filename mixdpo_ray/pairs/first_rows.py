"""What the first rows of a source's own files tell is wrong with them: before Ray starts, which takes many seconds.

It costs milliseconds, as looking ends at the first row that becomes a pair. Only where none of many does, the rest is
taken to be like them. What would have to be read whole before its first row is there is left to whoever prepares it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice

import pyarrow as pa
import pyarrow.parquet as pq

from mixdpo_ray import storage
from mixdpo_ray.errors import MixDPOError
from mixdpo_ray.pairs.causes import fault_in, reason_text
from mixdpo_ray.pairs.checking import check_pair, is_fatal
from mixdpo_ray.pairs.file_kinds import file_kind
from mixdpo_ray.pairs.formats import FORMATS, map_columns
from mixdpo_ray.pairs.margin_scale import resolve_scale
from mixdpo_ray.pairs.pair import Candidate
from mixdpo_ray.pairs.reading import RawRow, first_columns, read_rows
from mixdpo_ray.pairs.settings import SFT_SOURCE, TRAIN_SOURCE, DataSettings, SourceSettings
from mixdpo_ray.pairs.sft_rows import format_of_source
from mixdpo_ray.pairs.source_files import expand_paths, is_data_set, saved_by_datasets

_MOST_ROWS = 2_000  # that are looked at while none is a pair
_MOST_BYTES = 32 << 20  # of a file that has to be read whole before its first row is there
_OF_COLUMNS = ("bad_score", "bad_turns", "malformed_row")  # reasons that a wrong column gives to all rows


def wrong_at_first_sight(data: DataSettings, setting: str = TRAIN_SOURCE) -> str | None:
    """What is wrong with a source, where it is local files: its paths, its columns, or all of its first rows.

    `setting`: the one that names it, though what is said speaks of data.source.
    """
    if not _of_local_files(data.source):
        return None
    try:
        files = expand_paths(data.source.path)
        columns, rows = _columns_and_rows(files, data.max_row_bytes)
        name = format_of_source(setting, data, columns) if columns else ""
        return _wrong_with_all(rows, name, data) if name in FORMATS and setting != SFT_SOURCE else None
    except MixDPOError as error:
        return f"{error}" if str(error).startswith("data.") else f"data.source: {error}"


def _of_local_files(source: SourceSettings) -> bool:
    paths = [source.path] if isinstance(source.path, str) else source.path
    if isinstance(source.path, str) and (is_data_set(source) or saved_by_datasets(source.path)):
        return False
    return all(map(storage.is_local, paths))


def _columns_and_rows(files: Sequence[str], max_row_bytes: int) -> tuple[Sequence[str], Iterable[RawRow]]:
    """No columns where they cannot be known soon."""
    if _begins_soon(files[0]):
        files = [file for file in files if _begins_soon(file)]
        rows = chain.from_iterable(read_rows(file, max_row_bytes) for file in files)
        return first_columns(files, max_row_bytes), rows
    if file_kind(files[0]) == "parquet":
        try:
            return pq.read_schema(storage.local(files[0])).names, ()
        except (OSError, pa.ArrowException):
            pass  # whoever reads it reports it
    return (), ()


def _begins_soon(file: str) -> bool:
    """Whether its first row is there without reading much."""
    return file_kind(file) == "jsonl" or storage.local(file).stat().st_size <= _MOST_BYTES


def _wrong_with_all(rows: Iterable[RawRow], name: str, data: DataSettings) -> str | None:
    """Why none of the first rows is a pair, where that is a matter of their columns."""
    kind, checked = FORMATS[name], resolve_scale(data, FORMATS[name])
    if kind.group_by is not None:
        return None
    reasons: Counter[str] = Counter()
    faults: dict[str, str] = {}
    for raw in islice(rows, _MOST_ROWS):
        if raw.value is None:
            continue
        for found in kind.pairs([map_columns(raw.value, data.source.columns)], data.pair):
            reason = check_pair(found, checked) if isinstance(found, Candidate) else found
            if not isinstance(reason, str) or not (reason in _OF_COLUMNS or is_fatal(reason, data)):
                return None
            reasons[reason] += 1
            if reason not in faults:
                fault = fault_in(reason, raw.value, data.source.columns)
                faults[reason] = f"{raw.file} row {raw.row}{fault and f', {fault}'}"
    if not reasons:
        return None
    looked = (
        "its only pair is refused" if reasons.total() == 1 else f"all of its first {reasons.total()} pairs are refused"
    )
    why = "; ".join(reason_text(reason, faults[reason]) for reason, _ in reasons.most_common())
    return f"data.source: {looked}: {why}"
