"""What a mix of sources came to: counts and margins by source, and margins that would not compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixdpo_ray.errors import FormatError
from mixdpo_ray.pairs.report import aligned_columns
from mixdpo_ray.pairs.settings import DataSettings, mixed_name
from mixdpo_ray.pairs.split_and_order import Arrangement
from mixdpo_ray.preparation.convert_sources import ConvertedRows
from mixdpo_ray.preparation.convert_tasks import ConversionSettings

MIXTURE = "mixture"  # among the facts of a table: for each source, rows in, kept and left out, and the median margin
BY_WEIGHT = "left_out_by_weight"


def mix_weights(data: DataSettings) -> dict[str, float]:
    return {name: source.weight for name, source in data.source.mix.items()}


def refuse_mixed_scales(conversions: Sequence[ConversionSettings]) -> None:
    """One threshold over margins of which some are divided by their scale and others are not would mean nothing."""
    scales = {one.mixed: one.data.margin_scale for one in conversions if one.mixed is not None}
    if "range" in scales.values() and "none" in scales.values():
        found = (next(name for name, scale in scales.items() if scale == wanted) for wanted in ("range", "none"))
        divided, as_rated = found
        raise FormatError(
            f"data.margin_scale auto divides the margins of {divided} by their rating scale and leaves those of "
            f"{as_rated} as they are: choose quantile (rank within its source), or a table of source -> divisor, as in "
            f"{{{divided}: 4, {as_rated}: 1}}"
        )


def facts_by_source(
    staged: ConvertedRows, arranged: Arrangement, counts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Nothing where there is no mix."""
    kept = np.concatenate([arranged.train, arranged.heldout])
    numbers = staged.keys["source_number"].take(kept).to_numpy()
    facts = {}
    for number, (setting, of_source) in enumerate(counts.items()):
        if (name := mixed_name(setting)) is None:
            continue
        margins = arranged.margin[kept[numbers == number]]
        facts[name] = {
            "rows": of_source["rows"],
            "kept": of_source["rows"] - sum(of_source["refused"].values()),
            "refused": sum(count for reason, count in of_source["refused"].items() if reason != BY_WEIGHT),
            "left_out": of_source["refused"].get(BY_WEIGHT, 0),
            "median_margin": float(np.median(margins)) if len(margins) else None,
        }
    return {MIXTURE: facts} if facts else {}


def trained_by_source(data: DataSettings, staged: ConvertedRows, arranged: Arrangement) -> dict[str, int]:
    """Training pairs of each source of a mix; nothing where there is none."""
    names = staged.keys["source"].take(arranged.train).to_pylist() if data.source.mix else []
    return {name: names.count(name) for name in data.source.mix}


def described(facts: Mapping[str, Mapping[str, Any]], *, later: bool) -> str:
    """`later`: pairs were left out since, by rules that do not ask for the source."""
    kept = "kept at first" if later else "kept"
    heading = ("source", "rows in", kept, "refused", "left out by weight", "median margin")
    lines = [
        (name, one["rows"], one["kept"], one["refused"], one["left_out"], _margin(one["median_margin"]))
        for name, one in facts.items()
    ]
    return aligned_columns([heading, *lines])


def _margin(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
