"""The split and the position of every converted pair, or why it is refused after all.

These decisions need all pairs at once, so they are taken on narrow keys (ids, margins and lengths, no token), which fit
into one process for tens of millions of pairs. They depend on what the pairs say, not on where they were read: the same
pairs in other files, in another order, give the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mixdpo_ray.curriculum.order import curriculum_order, easiest_first, seeded_hashes
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.pairs.heldout import split_heldout, spread_out
from mixdpo_ray.pairs.margin_scale import quantile_margins
from mixdpo_ray.pairs.mixing import beyond_weights, together
from mixdpo_ray.pairs.settings import HeldoutSettings, SftSettings

KEY_SCHEMA = pa.schema(
    {
        "source_number": pa.int8(),  # of DataSettings.by_source: 0 is data.source
        "pair_id": pa.string(),
        "prompt_id": pa.string(),
        "score_chosen": pa.float64(),
        "score_rejected": pa.float64(),
        "margin": pa.float64(),
        "source": pa.string(),
        "prompt_length": pa.int64(),
        "chosen_length": pa.int64(),
        "rejected_length": pa.int64(),
        "file": pa.string(),
        "row": pa.int64(),
        "candidate": pa.int32(),
    }
)


@dataclass(frozen=True)
class Arrangement:
    """Row numbers of the keys."""

    train: NDArray[np.int64]  # in curriculum order
    heldout: NDArray[np.int64]  # from clear to ambiguous, and behind them so each further set
    refused: dict[str, NDArray[np.int64]]  # by reason
    margin: NDArray[np.float64]  # of every key, made comparable
    sets: dict[str, int]  # pairs of each further held-out set
    sft: NDArray[np.int64] | None = None  # rows of data.sft, in the order that they are trained in


def arrange(
    keys: pa.Table,
    heldout: HeldoutSettings,
    curriculum: CurriculumSettings,
    quantiles: bool,
    weights: Mapping[str, float] | None = None,
    sft: SftSettings | None = None,
) -> Arrangement:
    """Arrange pairs by rating margin: preparation/derive.py orders by another metric what was arranged here.

    `quantiles`: margins become ranks within their source, once duplicates no longer count. `weights`: of the sources of
    a mix, whose numbers are the first ones.
    """
    refused: dict[str, NDArray[np.int64]] = {}
    if weights:
        keys = together(keys, len(weights))
    first = first_of_duplicates(keys)
    refused["duplicate_pair"] = np.flatnonzero(~first)
    if weights:
        refused["left_out_by_weight"] = left_out = beyond_weights(keys, first, weights)
        first[left_out] = False
    margin = column(keys, "margin").copy()
    if quantiles:
        _rank_within_sources(margin, keys, first, heldout)
    sets = _sets(keys, first, margin, heldout, refused)
    train, evaluation = _splits(keys, first, margin, heldout, refused)
    order = curriculum_order(
        margin[train],
        keys["pair_id"].take(train),
        curriculum.physical_order,
        curriculum.seed,
        curriculum.swap_fraction,
    )
    held_out = [
        rows[easiest_first(margin[rows], keys["pair_id"].take(rows), curriculum.seed)]
        for rows in (evaluation, *sets.values())
    ]
    counts = {name: len(rows) for name, rows in sets.items()}
    apart = None if sft is None else _sft_rows(keys, first, evaluation, heldout, sft, refused)
    return Arrangement(train[order], np.concatenate(held_out), refused, margin, counts, apart)


def column(keys: pa.Table, name: str) -> NDArray[np.float64]:
    return np.asarray(keys[name].to_numpy())


def first_of_duplicates(keys: pa.Table) -> NDArray[np.bool_]:
    """One of each pair in each source: the one with the smallest margin, then the first by file and row.

    Where ratings of the same pair contradict each other the cautious one counts; by file and row alone it would depend
    on how the files are cut.
    """
    if not len(keys):
        return np.zeros(0, np.bool_)
    by = [("source_number", "ascending"), ("pair_id", "ascending")]
    ties = ("margin", "score_chosen", "score_rejected", "source", "file", "row", "candidate")
    order = pc.sort_indices(keys, by + [(name, "ascending") for name in ties]).to_numpy()
    ids = keys["pair_id"].combine_chunks().take(order)
    source = column(keys, "source_number")[order]
    same = np.asarray(pc.equal(ids[1:], ids[:-1])) & (source[1:] == source[:-1])
    first = np.ones(len(keys), np.bool_)
    first[order[1:][same]] = False
    return first


def _splits(
    keys: pa.Table,
    first: NDArray[np.bool_],
    margin: NDArray[np.float64],
    heldout: HeldoutSettings,
    refused: dict[str, NDArray[np.int64]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row numbers of the training and of the held-out pairs, in the order of the keys."""
    prompts, source = keys["prompt_id"], column(keys, "source_number")
    train = np.flatnonzero(first & (source == 0))
    evaluation = np.flatnonzero(first & (source == 1)) if heldout.source is not None else train[:0]
    in_sets = np.flatnonzero(first & (source > (heldout.source is not None)) & (source < _sft_number(heldout)))
    # every prompt of a held-out source, chosen or not: another max_pairs must not change what is trained
    apart = prompts.take(np.concatenate([evaluation, in_sets])).combine_chunks()
    leaks = np.asarray(pc.is_in(prompts.take(train), apart))
    refused["prompt_in_heldout"] = train[leaks]
    train = train[~leaks]
    if heldout.source is None:
        out = split_heldout(prompts.take(train), margin[train], heldout)
        return train[~out], train[out]
    return train, _not_too_many(keys, evaluation, margin, heldout, refused)


def _sets(
    keys: pa.Table,
    first: NDArray[np.bool_],
    margin: NDArray[np.float64],
    heldout: HeldoutSettings,
    refused: dict[str, NDArray[np.int64]],
) -> dict[str, NDArray[np.int64]]:
    """Row numbers of each further held-out set, in the order of the keys."""
    source, before = column(keys, "source_number"), 1 + (heldout.source is not None)
    members = {name: np.flatnonzero(first & (source == before + n)) for n, name in enumerate(heldout.sets)}
    return {name: _not_too_many(keys, rows, margin, heldout, refused) for name, rows in members.items()}


def _sft_number(heldout: HeldoutSettings) -> int:
    """The number of data.sft.source among the sources, where it is one."""
    return 1 + (heldout.source is not None) + len(heldout.sets)


def _sft_rows(
    keys: pa.Table,
    first: NDArray[np.bool_],
    evaluation: NDArray[np.int64],
    heldout: HeldoutSettings,
    sft: SftSettings,
    refused: dict[str, NDArray[np.int64]],
) -> NDArray[np.int64]:
    """The rows of data.sft that are trained, by a hash: more of them begin with the same ones."""
    source, number, prompts = column(keys, "source_number"), _sft_number(heldout), keys["prompt_id"]
    rows = np.flatnonzero(first & (source == number))
    apart = np.union1d(evaluation, np.flatnonzero((source > 0) & (source < number)))
    leaks = np.asarray(pc.is_in(prompts.take(rows), prompts.take(apart).combine_chunks()))
    refused["prompt_in_heldout"] = np.concatenate([refused["prompt_in_heldout"], rows[leaks]])
    rows = rows[~leaks]
    rows = rows[np.argsort(seeded_hashes(keys["pair_id"].take(rows), sft.seed), kind="stable")]
    taken = min(round(sft.fraction * len(rows)), len(rows) if sft.max_rows is None else sft.max_rows)
    refused["sft_is_full"] = rows[taken:]
    trained: NDArray[np.int64] = rows[:taken]
    return trained


def _not_too_many(
    keys: pa.Table,
    rows: NDArray[np.int64],
    margin: NDArray[np.float64],
    heldout: HeldoutSettings,
    refused: dict[str, NDArray[np.int64]],
) -> NDArray[np.int64]:
    """The rows of a held-out source that have room; the others are refused."""
    kept = spread_out(keys["prompt_id"].take(rows), margin[rows], len(rows), heldout)
    refused["heldout_is_full"] = np.concatenate([refused.get("heldout_is_full", rows[:0]), rows[~kept]])
    return rows[kept]


def _rank_within_sources(
    margin: NDArray[np.float64], keys: pa.Table, first: NDArray[np.bool_], heldout: HeldoutSettings
) -> None:
    """Make margins ranks. A further held-out set is ranked by itself: it must not change what is trained."""
    source, shared = column(keys, "source_number"), int(heldout.source is not None)
    for rows in (source <= shared, *(source == number for number in range(shared + 1, int(source.max(initial=0)) + 1))):
        mine = rows & first
        margin[mine] = quantile_margins(margin[mine], keys["source"].filter(mine).to_pylist())
