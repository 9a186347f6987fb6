"""A prepared table from another one: by another metric, of selected pairs, with flipped labels, in another order.

    base table -> metric columns -> selection -> flips -> order -> sorted parts -> manifest

Nothing is read from the sources and nothing is tokenised: changing the metric moves rows. The held-out split is taken
over as it is, whole and in its order, so that tables of one base are judged by the same pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from ray.data import Dataset

from mixdpo_ray import storage
from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.folder_lock import atomic_folder
from mixdpo_ray.cluster.free_cpus import wait_for_a_cpu
from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.curriculum.order import curriculum_order
from mixdpo_ray.curriculum.settings import RATING_MARGIN
from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.errors import DataError, TooFewPairsError
from mixdpo_ray.pairs.flips import flipped, with_flips
from mixdpo_ray.pairs.histogram import margin_histogram
from mixdpo_ray.pairs.pairing import PairSettings
from mixdpo_ray.pairs.quarantine import QUARANTINE
from mixdpo_ray.pairs.report import MARGINS_PICTURE, draw
from mixdpo_ray.pairs.selection import Selectable, Selected, name_of, select
from mixdpo_ray.preparation.convert_sources import Sizes
from mixdpo_ray.preparation.table_key import write_recipe
from mixdpo_ray.preparation.write_sorted import positions_of, write_all
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.scoring.metric_columns import computed_columns, metric_identities
from mixdpo_ray.tables.index import LENGTH_COLUMNS, Index
from mixdpo_ray.tables.parquet import write_parquet
from mixdpo_ray.tables.prepared_table import (
    SPLITS,
    Manifest,
    PreparedTable,
    commit,
    with_index_seals,
    write_index,
)
from mixdpo_ray.tables.trained_rows import splits_of

NOT_SELECTED = "not_selected.parquet"  # position in the base table, pair_id, number of the rule


@dataclass(frozen=True)
class Derived:
    """Positions of the base table, in the order of the new one."""

    rows: dict[str, NDArray[np.int64]]  # split -> positions
    difficulty: dict[str, NDArray[np.float64]]  # split -> of every position of the base
    selected: Selected
    pair_id: pa.ChunkedArray  # of the base's training split


def derive(recipe: Recipe, base: PreparedTable, name: str, folder: str, sizes: Sizes) -> PreparedTable:
    began = time.monotonic()
    quiet_ray_data()
    wait_for_a_cpu(recipe.cluster.start_timeout_seconds)
    derived = arrange_again(recipe, base)
    say(writing := f"derive: writing the pairs of {base.folder} in another order", meanwhile=writing)
    with Counter("derive", "part") as progress:
        table = committed(folder, name, lambda unfinished: _write(unfinished, recipe, base, derived, sizes, progress))
    say(f"derived from {base.folder} without tokenising, in {time.monotonic() - began:.1f} s")
    return table


def committed(folder: str, name: str, write: Callable[[str], Manifest]) -> PreparedTable:
    """The table that `write` leaves in an unfinished folder, whole or not at all."""
    with atomic_folder(folder) as unfinished:
        commit(unfinished, write(unfinished).model_copy(update={"fingerprint": name}))
    return PreparedTable.open(folder)


def arrange_again(recipe: Recipe, base: PreparedTable) -> Derived:
    """Which pairs of the base, in which order."""
    columns = computed_columns(recipe, base, recipe.metrics_used)
    metric = recipe.curriculum.difficulty
    difficulty = {split: METRICS[metric].easiness(columns[metric][split]) for split in SPLITS}
    for split, values in difficulty.items():
        if np.isnan(values).any():
            raise DataError(
                f"curriculum.difficulty {metric}: {int(np.isnan(values).sum())} of the {len(values)} pairs of {split} "
                "have no value: take another metric"
            )
    pair_id = ids_of_index(base.index("train"))
    pairs = Selectable(
        {name: splits["train"] for name, splits in columns.items()},
        pair_id,
        frozenset(name for name in columns if METRICS[name].smaller_is_easier),
    )
    selected = select(recipe.data.select, pairs)
    _check_enough(recipe, len(pairs), selected)
    curriculum, kept = recipe.curriculum, selected.rows
    difficulty |= {split: np.zeros(base.rows(split)) for split in splits_of(base) if split not in difficulty}
    order = curriculum_order(
        difficulty["train"][kept],
        pair_id.take(kept),
        curriculum.physical_order,
        curriculum.seed,
        curriculum.swap_fraction,
    )
    as_they_are = {split: np.arange(base.rows(split)) for split in splits_of(base)}
    return Derived({**as_they_are, "train": kept[order]}, difficulty, selected, pair_id)


def _check_enough(recipe: Recipe, pairs: int, selected: Selected) -> None:
    batch = recipe.train.global_batch_size
    if len(selected.rows) >= batch:
        return
    steps = ", ".join(
        f"{name_of(rule)} left {left}" for rule, left in zip(recipe.data.select, selected.left, strict=True)
    )
    raise TooFewPairsError(
        f"data.select leaves {len(selected.rows)} of {pairs} pairs ({steps or 'no rule'}), fewer than "
        f"train.global_batch_size {batch}: select more pairs or lower the batch size"
    )


def _write(
    folder: str, recipe: Recipe, base: PreparedTable, derived: Derived, sizes: Sizes, progress: Counter
) -> Manifest:
    """Everything but the manifest's name."""
    train, margin = derived.rows["train"], {split: base.index(split).margin for split in derived.rows}
    by_metric = recipe.curriculum.difficulty != RATING_MARGIN
    where = positions_of(
        row_keys_of(base, derived.rows),
        np.concatenate([margin[split][rows] for split, rows in derived.rows.items()]),
        {split: len(rows) for split, rows in derived.rows.items()},
        np.concatenate([derived.difficulty[split][rows] for split, rows in derived.rows.items()])
        if by_metric
        else None,
    )
    tokens = sum(
        int(getattr(base.index(split), name)[derived.rows[split]].sum(dtype=np.int64))
        for split in derived.rows
        for name in LENGTH_COLUMNS
    )
    rows = base_rows(base, partial(_with_flips, recipe.data.pair), small=tokens <= sizes.part_tokens)
    written = write_all(rows, where, folder, tokens, sizes.part_tokens, partial(progress.reach, doing="sort and write"))
    indexes = {split: _write_index(folder, split, recipe, base, derived) for split in derived.rows}
    seals = {split: seal for split, (seal, _) in indexes.items()}
    left_out = np.flatnonzero(derived.selected.left_out_by >= 0)
    _write_not_selected(storage.join(folder, NOT_SELECTED), derived, left_out)
    storage.copy(storage.join(base.folder, QUARANTINE), storage.join(folder, QUARANTINE))
    difficulty = derived.difficulty["train"][train]
    metric = recipe.curriculum.difficulty if by_metric else ""
    draw(storage.join(folder, MARGINS_PICTURE), difficulty, recipe.curriculum.threshold, metric)
    write_recipe(folder, recipe)
    return base.manifest.model_copy(
        update={
            "content_digest": written.digest,
            "splits": with_index_seals(written.splits, seals),
            "rows_kept": sum(map(len, derived.rows.values())),
            "quarantined": base.manifest.quarantined | ({"not_selected": len(left_out)} if len(left_out) else {}),
            "notes": base.manifest.notes | ({"flipped": indexes["train"][1]} if recipe.data.pair.flip else {}),
            "margins": margin_histogram(margin["train"][train]),
            "facts": base.manifest.facts | _facts(recipe, base, derived),
        }
    )


def _facts(recipe: Recipe, base: PreparedTable, derived: Derived) -> dict[str, Any]:
    rules = recipe.to_dict()["data"]["select"]
    return {
        **recipe.curriculum.order_identity,
        "base": base.manifest.fingerprint,
        "metrics": metric_identities(recipe),
        "select": [{**rule, "left": left} for rule, left in zip(rules, derived.selected.left, strict=True)],
        "flip": recipe.data.pair.flip,
    }


def row_keys_of(base: PreparedTable, rows: dict[str, NDArray[np.int64]]) -> NDArray[np.uint64]:
    """Names of rows of a base, by their positions in its splits."""
    firsts = _first_keys(base)
    return np.concatenate([firsts[split] + positions for split, positions in rows.items()]).astype(np.uint64)


def _first_keys(base: PreparedTable) -> dict[str, int]:
    ends = np.cumsum([base.rows(split) for split in splits_of(base)]).tolist()
    return dict(zip(splits_of(base), [0, *ends], strict=False))


Change = Callable[[str, pa.Table], pa.Table]  # of a split's rows, with their positions


def base_rows(base: PreparedTable, change: Change, small: bool) -> Dataset:
    """Rows of the base, changed and with a key; a small table is read by the driver, before a worker is there."""
    parts = [(split, number) for split in splits_of(base) for number in range(len(base.parts(split)))]
    if small:
        return ray.data.from_arrow([_part_rows(base, split, number, change) for split, number in parts])
    folder = base.folder

    def read(block: dict[str, Any]) -> pa.Table:
        table = PreparedTable.open(folder)
        named = zip(block["split"], block["number"], strict=True)
        return pa.concat_tables([_part_rows(table, str(split), int(number), change) for split, number in named])

    items = [{"split": split, "number": number} for split, number in parts]
    listed = ray.data.from_items(items, override_num_blocks=len(items))
    return listed.map_batches(read, batch_size=1, batch_format="numpy")


def _part_rows(base: PreparedTable, split: str, number: int, change: Change) -> pa.Table:
    part = base.parts(split)[number]
    rows = base.read(split, np.arange(part.first_position, part.first_position + part.rows))
    keys = row_keys_of(base, {split: rows["position"].to_numpy()})
    rows = rows.append_column("row_key", pa.array(keys))
    return change(split, rows).drop_columns(["position"])


def _with_flips(pair: PairSettings, split: str, rows: pa.Table) -> pa.Table:
    return with_flips(rows, _flips(rows["pair_id"], split, pair)) if pair.flip else rows


def _flips(pair_ids: pa.ChunkedArray, split: str, pair: PairSettings) -> NDArray[np.bool_]:
    """The held-out pairs are what everything is judged by: never flipped."""
    return flipped(pair_ids, pair.flip if split == "train" else 0.0, pair.flip_seed)


def _write_index(folder: str, split: str, recipe: Recipe, base: PreparedTable, derived: Derived) -> tuple[str, int]:
    """The seal of the index of a split, and how many of its pairs are flipped."""
    index, members, pair = base.index(split), derived.rows[split], recipe.data.pair
    columns: dict[str, Any] = {
        "position": np.arange(len(members)),
        "pair_id": ids_of_index(index).take(members),
        "margin": np.asarray(index.margin[members]),
        **index.counts(members),
    }
    if recipe.curriculum.difficulty != RATING_MARGIN:
        columns["difficulty"] = derived.difficulty[split][members]
    rows, flips = pa.table(columns), 0
    if pair.flip:
        flip = _flips(rows["pair_id"], split, pair)
        rows, flips = with_flips(rows, flip), int(flip.sum())
    return write_index(folder, split, rows), flips


def ids_of_index(index: Index) -> pa.ChunkedArray:
    """The pair ids as large strings: more than 67 million ids are more text than others hold."""
    ids = pa.array(index.pair_id, pa.large_string())
    return ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])


def _write_not_selected(path: str, derived: Derived, left_out: NDArray[np.int64]) -> None:
    rules = derived.selected.left_out_by[left_out]
    write_parquet(path, pa.table({"position": left_out, "pair_id": derived.pair_id.take(left_out), "rule": rules}))
