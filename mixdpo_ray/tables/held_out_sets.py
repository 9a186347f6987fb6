"""The positions of held-out sets in a table's held-out split: the main one first, then those of data.heldout.sets."""

from __future__ import annotations

from collections.abc import Mapping

from mixdpo_ray.tables.prepared_table import PreparedTable

MAIN = ""  # the name of the set that every recipe has
SET_ROWS = "held_out_sets"  # among the facts of a table, where it has further sets: how many pairs each of them has


def held_out_sets(table: PreparedTable) -> dict[str, range]:
    """The positions of each set, by its name; a set may have none."""
    further: Mapping[str, int] = table.manifest.facts.get(SET_ROWS, {})
    end = table.rows("eval") if "eval" in table.manifest.splits else 0
    found, first = {MAIN: range(end - sum(further.values()))}, end - sum(further.values())
    for name, rows in further.items():
        found[name] = range(first, first + rows)
        first += rows
    return found
