"""Everything that was measured as one table. What only a GPU can tell is said to be so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from tests.measure.phases import DONE, Result

WIDTH = 170
ONLY_THERE = "GPU only"
PERCENT: Callable[[float], str] = "{:.1%}".format
# heading, the number's name, how it is written, and whether only a GPU has it where its neighbour is there
COLUMNS: tuple[tuple[str, str, Callable[[float], str], str | None], ...] = (
    ("us/token", "us_per_token", "{:.3g}".format, None),
    ("MFU", "mfu", PERCENT, "us_per_token"),
    ("of measured", "mfu_of_measured", PERCENT, None),
    ("peak GiB", "peak_gib", "{:.3g}".format, "us_per_token"),
    ("foreseen", "estimate_gib", "{:.3g}".format, None),
)


def table_of(results: Sequence[Result], title: str) -> Table:
    seconds = [f"{result['phase']} {result['seconds']:.0f}" for result in results if "seconds" in result]
    table = Table(title=title, caption=f"seconds: {', '.join(seconds)}", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("phase")
    table.add_column("what", max_width=46)
    for heading, *_ in COLUMNS:
        table.add_column(heading, justify="right")
    table.add_column("what it says", max_width=64)
    for result in results:
        if "outcome" not in result:
            cells = [_cell(result, *column[1:]) for column in COLUMNS]
            table.add_row(result["phase"], result["what"], *cells, result.get("says", ""))
        elif result["outcome"] != DONE:
            table.add_row(result["phase"], result["outcome"], *[""] * len(COLUMNS), result["why"])
    return table


def _cell(result: Result, name: str, written: Callable[[float], str], beside: str | None) -> str:
    if result.get(name) is not None:
        return written(result[name])
    return ONLY_THERE if beside in result else ""


def show(results: Sequence[Result], title: str, file: Path) -> None:
    """On the screen, last, and in a file."""
    table = table_of(results, title)
    with file.open("w", encoding="utf-8") as written:
        Console(file=written, width=WIDTH).print(table)
    Console(width=WIDTH).print(table)
