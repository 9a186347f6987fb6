"""Margins of sources that are rated on different scales, made comparable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.pairs.formats import Format
from mixdpo_ray.pairs.settings import DataSettings


def resolve_scale(data: DataSettings, source_format: Format) -> DataSettings:
    """The same settings with margin_scale auto decided: one threshold on a mixture of scales would mean nothing."""
    if data.margin_scale != "auto":
        return data
    return data.model_copy(update={"margin_scale": "range" if source_format.mixed_scales else "none"})


def quantile_margins(margins: NDArray[np.float64], sources: Sequence[str]) -> NDArray[np.float64]:
    """The share of the pairs of its own source whose margin is smaller: [0, 1), and equal margins stay equal."""
    names, source_of = np.unique(np.asarray(sources, dtype=object).astype(str), return_inverse=True)
    quantiles = np.empty(len(margins))
    for source in range(len(names)):
        mine = np.flatnonzero(source_of == source)
        quantiles[mine] = np.searchsorted(np.sort(margins[mine]), margins[mine], side="left") / len(mine)
    return quantiles
