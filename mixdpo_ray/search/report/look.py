"""How figures look, and how one becomes text that a page can hold."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

BLUE, RED, INK, QUIET, PALE = "#1b6ca8", "#c8553d", "#1d2733", "#8a94a0", "#c9d0d8"
STATES = {"COMPLETE": BLUE, "PRUNED": "#e0a83a", "FAIL": RED, "RUNNING": "#4b9a6a", "WAITING": PALE}
STATE_WORDS = {
    "COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting",
}  # fmt: skip
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif'
AXIS = {
    "gridcolor": "#e8ebef", "linecolor": PALE, "zerolinecolor": PALE, "ticks": "outside", "tickcolor": PALE,
    "ticklen": 4, "automargin": True, "title": {"standoff": 10, "font": {"size": 12.5}},
}  # fmt: skip
TEMPLATE = {
    "layout": {
        "font": {"family": FONT, "size": 12, "color": "#3d4855"},
        "colorway": [BLUE, RED, "#4b9a6a", "#e0a83a", "#7a5ea8", "#3fa7b5", "#b5637f", "#7d8894"],
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
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
class Part:
    """A chapter of the page."""

    anchor: str
    title: str
    figures: tuple[Figure, ...]


def deepened(color: str) -> str:
    """A colour of Optuna's scale, whose lightest is white and cannot be seen on paper, mixed with its darkest."""
    parts = (0.76 * float(part) + 0.24 * dark for part, dark in zip(RGB.findall(color), (8, 48, 107), strict=True))
    return f"rgb({','.join(f'{part:.0f}' for part in parts)})"


def deepened_scale(scale: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    return [(place, deepened(color)) for place, color in scale]


def plain_ticks(axis: Any, values: Sequence[Any]) -> None:
    """On a logarithmic axis 0.05 rather than a small 5 between 0.01 and 100m."""
    if axis.type != "log":
        return
    low, high = math.log10(min(values)), math.log10(max(values))
    digits = (1,) if high - low > 1.8 else (1, 3) if high - low > 1.1 else (1, 2, 5)
    ticks = [digit * 10.0**power for power in range(math.floor(low) - 1, math.ceil(high) + 1) for digit in digits]
    axis.update(tickangle=0, tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def drawing(figure: Any, height: int, *, title: str | None = None, min_width: int = 0, left: int = 10) -> Drawing:
    """A plotly figure in the page's own look."""
    margin = {"l": left, "r": 10, "t": 16, "b": 10, "autoexpand": True}
    background = {name: TEMPLATE["layout"][name] for name in ("paper_bgcolor", "plot_bgcolor")}
    figure.update_layout(template=TEMPLATE, title=None, height=height, width=None, margin=margin, **background)
    plain = _literal(json.loads(figure.to_json()))
    return Drawing(Markup(script_text(plain)), height, min_width, title)


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
