"""The rows that were refused, of every source, and whether a source has too many of them: each has its own limit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.errors import QuarantineError
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.pairs.quarantine import QUARANTINE, Quarantine, over_budget, within_budget
from mixdpo_ray.pairs.settings import TRAIN_SOURCE, DataSettings
from mixdpo_ray.pairs.split_and_order import Arrangement
from mixdpo_ray.preparation.convert_sources import ConvertedRows
from mixdpo_ray.tables.prepared_table import PreparedTable

BY_SOURCE = "by_source"  # among the facts of a table: rows and refusals, by the setting that names their source
SourceCounts = Mapping[str, Mapping[str, Any]]


def refused_rows(staged: ConvertedRows, arranged: Arrangement) -> Quarantine:
    """What was refused while rows were read, and what once all of them were there."""
    names, columns = list(staged.rows_by_source), ("file", "row", "source_number")
    late = [
        Refusal(file, row, reason, names[number])
        for reason, rows in arranged.refused.items()
        for file, row, number in zip(*(staged.keys[name].take(rows).to_pylist() for name in columns), strict=True)
    ]
    return Quarantine.of([*staged.refused, *late])


def counts_by_source(staged: ConvertedRows, quarantine: Quarantine) -> SourceCounts:
    return {
        setting: {"rows": rows, "refused": quarantine.of_source(setting).counts}
        for setting, rows in staged.rows_by_source.items()
    }


def check_budgets(data: DataSettings, counts: SourceCounts, quarantine: Quarantine, path: str) -> None:
    """Refuse a source of which too much was refused, and write to the path what that is."""
    for setting in _over(data, counts):
        quarantine.write(path)
        raise _error(data, counts, setting, quarantine, path)


def check_budgets_again(data: DataSettings, table: PreparedTable) -> None:
    """Refuse a table whose name says nothing about the limits that its sources must keep."""
    manifest, path = table.manifest, storage.join(table.folder, QUARANTINE)
    # tables of before do not tell whose rows were refused
    whole = {TRAIN_SOURCE: {"rows": manifest.rows_in, "refused": manifest.quarantined}}
    counts = manifest.facts.get(BY_SOURCE, whole)
    for setting in _over(data, counts):
        raise _error(data, counts, setting, Quarantine.read(path), path)


def _over(data: DataSettings, counts: SourceCounts) -> list[str]:
    limits = {setting: of_source.source.max_quarantined_fraction for setting, of_source in data.by_source.items()}
    return [
        setting
        for setting, of_source in counts.items()
        if not within_budget(of_source["refused"], of_source["rows"], limits[setting])
    ]


def _error(
    data: DataSettings, counts: SourceCounts, setting: str, quarantine: Quarantine, path: str
) -> QuarantineError:
    rows, source = counts[setting]["rows"], data.by_source[setting].source
    return over_budget(quarantine.of_source(setting), rows, source, path, setting)
