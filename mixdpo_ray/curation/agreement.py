"""Pairs on whose order raters disagree: dropped, or turned to where most raters are; the disagreement is kept."""

from __future__ import annotations

import numpy as np

from mixdpo_ray.curation.curated import CuratedPairs, bounded
from mixdpo_ray.curation.raters import Raters, majority_error, unanimous_error
from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.curating import Agreement
from mixdpo_ray.tables.prepared_table import RATER_MARGINS, PreparedTable

FEWEST_RATERS = 2


def curate_by_agreement(table: PreparedTable, settings: Agreement) -> CuratedPairs:
    raters = raters_of(table)
    disagree, votes = raters.disagree, raters.votes
    exchanged = raters.against & (settings.wrong == "flip")
    kept = ~disagree if settings.wrong == "drop" else np.ones(len(disagree), np.bool_)
    spoke = (votes != 0).sum(1)
    error = raters.error_rate
    by_most = np.array([majority_error(error, count) if count else 0.5 for count in range(votes.shape[1] + 1)])
    by_all = np.array([unanimous_error(error, count) if count else 0.5 for count in range(votes.shape[1] + 1)])
    left = np.where(disagree, by_most[spoke], by_all[spoke])[kept]
    scores = [table.numbers("train", f"score_{name}") for name in ("chosen", "rejected")]
    return CuratedPairs(
        kept=kept,
        exchanged=exchanged,
        score_chosen=scores[0],
        score_rejected=scores[1],
        margin=table.index("train").margin,
        columns={"disagreement": raters.width},
        facts={
            "method": "agreement",
            "raters": votes.shape[1],
            "found": int(disagree.sum()),
            "against": int(raters.against.sum()),
            "error_rate": error,
            "width": [float(value) for value in np.quantile(raters.width, (0.1, 0.5, 0.9))],
            "before": bounded(float(by_most[spoke].mean())),
            "noise_rate": bounded(float(left.mean())) if len(left) else 0.0,
        },
    )


def raters_of(table: PreparedTable) -> Raters:
    rows = table.column("train", RATER_MARGINS).to_pylist() if table.has_column("train", RATER_MARGINS) else []
    most = max((len(row) for row in rows if row), default=0)
    if most < FEWEST_RATERS:
        raise DataError(
            "data.curate agreement compares several raters of a pair, and the source has ratings of "
            f"{'one' if most else 'none'}: give answers.rate.raters two or more in jobs/rate.py, or take another method"
        )
    margins = np.full((len(rows), most), np.nan)
    for number, row in enumerate(rows):
        margins[number, : len(row or ())] = row or ()
    return Raters.of(margins)
