"""How measured quantities grow: exponents of power laws, by least squares on logarithms. 1 is linear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float | None:
    """None where there is nothing to fit."""
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if size > 0 and value > 0]
    if len({size for size, _ in known}) < 2:
        return None
    x, y = np.log(np.array(known)).T
    return float(np.polyfit(x, y, 1)[0])


def table(rows: Sequence[dict[str, Any]], by: str) -> str:
    """Lines of text: a row for each measurement, and below them how every column of numbers grows with `by`."""
    names = list(rows[0])
    growth = {by: "growth"}
    for name in names:
        values = [row[name] for row in rows]
        if name != by and all(isinstance(value, int | float) for value in values):
            fitted = exponent([row[by] for row in rows], values)
            growth[name] = "" if fitted is None else f"^{fitted:.2f}"
    lines = [names, *[[_text(row[name]) for name in names] for row in rows], [growth.get(name, "") for name in names]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
