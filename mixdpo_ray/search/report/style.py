"""How figures look, and how one becomes text that a page can hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

# Of middle lightness, as the page turns lightness around on dark screens.
BLUE, RED, INK, QUIET, PALE = "#1b6ca8", "#c8553d", "#1d2733", "#7c8793", "#c9d0d8"
GREY = "#a3acb6"  # breaks the guard, or has not begun
CROSS = {"color": GREY, "symbol": "x", "size": 7, "line": {"width": 0}}
STATES = {"COMPLETE": BLUE, "PRUNED": "#c98a12", "FAIL": RED, "RUNNING": "#4b9a6a", "WAITING": GREY}
STATE_WORDS = {
    "COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "interrupted",
    "WAITING": "waiting",
}  # fmt: skip
CLEAR = "rgba(0,0,0,0)"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
AXIS = {
    "gridcolor": "#e3e7eb", "linecolor": PALE, "zerolinecolor": PALE, "ticks": "outside", "tickcolor": PALE,
    "ticklen": 4, "automargin": True, "title": {"standoff": 10, "font": {"size": 12.5}},
}  # fmt: skip
PLOTLY_TEMPLATE = {
    "layout": {
        "font": {"family": FONT, "size": 12, "color": "#3d4855"},
        "colorway": [BLUE, RED],
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "xaxis": {**AXIS, "zeroline": False},
        "yaxis": AXIS,
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        "legend": {"orientation": "h", "itemwidth": 30, "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
    }
}
RGB = re.compile(r"[\d.]+")
MARKUP = re.compile(r"<(?!br>|extra>|/extra>)")  # all that Optuna's own texts use


@dataclass(frozen=True)
class Drawing:
    figure: Markup  # JSON, safe inside a script element
    height: int
    min_width: int = 0
    title: str | None = None


@dataclass(frozen=True)
class Figure:
    anchor: str
    title: str
    caption: str = ""
    drawings: tuple[Drawing, ...] = ()
    side_by_side: bool = False
    left_out: str | None = None  # why there is nothing to see

    def drawn(self, caption: str, drawings: Sequence[Drawing], *, side_by_side: bool = False) -> Figure:
        return replace(self, caption=caption, drawings=tuple(drawings), side_by_side=side_by_side)

    def without(self, reason: str) -> Figure:
        return replace(self, left_out=reason)


@dataclass(frozen=True)
class PagePart:
    """A chapter of the page."""

    anchor: str
    title: str
    figures: tuple[Figure, ...]
    note: str | None = None

    @property
    def drawn(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.drawings]

    @property
    def missing(self) -> list[Figure]:
        return [figure for figure in self.figures if not figure.drawings]


def deepened(color: str) -> str:
    """A colour of Optuna's scale, whose lightest is white and cannot be seen on paper, mixed with its darkest."""
    parts = (0.76 * float(part) + 0.24 * dark for part, dark in zip(RGB.findall(color), (8, 48, 107), strict=True))
    return f"rgb({','.join(f'{part:.0f}' for part in parts)})"


def deepened_scale(scale: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    return [(position, deepened(color)) for position, color in scale]


def clipped(text: str, most: int = 18) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def plain_ticks(axis: Any, values: Sequence[Any], written: Callable[[Any], str] = str) -> None:
    """Write 0.05 on a logarithmic axis, not a small 5 between 0.01 and 100m; of long names only the beginning."""
    if axis.type == "category":  # whose ticks are the values as they were written
        axis.update(tickvals=[written(value) for value in values], ticktext=[clipped(str(value)) for value in values])
    if axis.type != "log":
        return
    low, high = math.log10(min(values)), math.log10(max(values))
    digits = (1,) if high - low > 1.8 else (1, 3) if high - low > 1.1 else (1, 2, 5)
    ticks = [digit * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for digit in digits]
    axis.update(tickangle=0, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def drawing(figure: Any, height: int, *, title: str | None = None, min_width: int = 0, left: int = 10) -> Drawing:
    """A plotly figure in the page's own look."""
    plain: dict[str, Any] = json.loads(figure.to_json())
    own = {name: inner for name, inner in plain["layout"].items() if name not in ("title", "width")}
    look = {"template": PLOTLY_TEMPLATE, "height": height, "margin": {"l": left, "r": 10, "t": 16, "b": 10}}
    layout = {**own, **look, "paper_bgcolor": CLEAR, "plot_bgcolor": CLEAR}
    return Drawing(Markup(script_text(_literal({"data": plain["data"], "layout": layout}))), height, min_width, title)


def ring(plot: Any, x: Any, y: Any) -> None:
    """Around the winner."""
    look = {"symbol": "circle-open", "size": 17, "color": RED, "line": {"width": 2.5}}
    plot.add_scatter(x=[x], y=[y], mode="markers", marker=look, hoverinfo="skip", showlegend=False)


def script_text(value: Any) -> str:
    """JSON that cannot end the script element which holds it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _literal(value: Any) -> Any:
    """plotly reads a little HTML in any text of a figure; a setting that holds some is shown as it is written."""
    if isinstance(value, str):
        return MARKUP.sub("&lt;", value.replace("&", "&amp;")) if "<" in value else value
    if isinstance(value, list):
        return [_literal(inner) for inner in value]
    return {key: _literal(inner) for key, inner in value.items()} if isinstance(value, dict) else value
