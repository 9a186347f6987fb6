"""Which metrics have to be computed, and with which settings, for those that were asked for by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.metric import Metric


def needed_metrics(asked: Iterable[str], given: Mapping[str, Metric], where: str = "metrics") -> dict[str, Metric]:
    """Those asked for and those that they combine, the combined ones first; ValueError says what to write."""
    found: dict[str, Metric] = {}

    def visit(name: str, where: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(
                f"{where}: {' needs '.join([*above[above.index(name) :], name])}: name another metric there"
            )
        if name in found:
            return
        metric = given[name] if name in given else _by_default(name, where)
        for other in metric.others():
            visit(other, f"metrics.{name}", (*above, name))
        found[name] = metric

    for name in asked:
        visit(name, where, ())
    return found


def _by_default(name: str, where: str) -> Metric:
    if name not in METRICS:
        close = difflib.get_close_matches(name, METRICS, n=1)
        meant = f"did you mean {close[0]}? " if close else ""
        raise ValueError(f"{where}: unknown metric {name!r}; {meant}known: {', '.join(METRICS)}")
    kind = METRICS[name]
    try:
        return kind()
    except ValidationError:
        settings = [setting for setting, field in kind.model_fields.items() if field.is_required()] or ["model"]
        wanted = ", ".join(f"{setting}: ..." for setting in settings)
        raise ValueError(
            f"{where}: {name} needs to know {' and '.join(settings)}: write metrics: {{{name}: {{{wanted}}}}}"
        ) from None
