"""Which metrics have to be computed, and with which settings, for those that were asked for by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.metric import Metric
from mixdpo_ray.wording import did_you_mean


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
        raise ValueError(f"{where}: unknown metric {name!r}; {did_you_mean(name, METRICS)}")
    kind = METRICS[name]
    try:
        return kind()
    except ValidationError:
        settings = [setting for setting, field in kind.model_fields.items() if field.is_required()] or ["model"]
        wanted = ", ".join(f"{setting}: ..." for setting in settings)
        raise ValueError(
            f"{where}: {name} needs to know {' and '.join(settings)}: write metrics: {{{name}: {{{wanted}}}}}"
        ) from None
