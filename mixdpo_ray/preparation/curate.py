"""A prepared table with its ratings or orders curated: of the same pairs, or of fewer, with what changed in columns.

    base table -> what neighbours, a surrogate or raters say -> kept, exchanged and rated anew -> order -> sorted parts

The held-out pairs stay as they were rated. What the source said is kept: rated_chosen, rated_rejected and rated_margin
of the answers as they now stand, exchanged, and what the method found of each pair.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.free_cpus import wait_for_a_cpu
from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.curation.agreement import curate_by_agreement
from mixdpo_ray.curation.curated import CuratedPairs
from mixdpo_ray.curation.picture import draw_curation
from mixdpo_ray.curation.ratings import curate_ratings
from mixdpo_ray.curation.report import CURATION, CURATION_PICTURE
from mixdpo_ray.curation.surrogate import curate_orders
from mixdpo_ray.curriculum.order import curriculum_order
from mixdpo_ray.errors import TooFewPairsError
from mixdpo_ray.pairs.curating import DS2, Agreement, PerpCorrect
from mixdpo_ray.pairs.flips import with_flips
from mixdpo_ray.pairs.histogram import margin_histogram
from mixdpo_ray.pairs.quarantine import QUARANTINE
from mixdpo_ray.pairs.report import MARGINS_PICTURE, draw
from mixdpo_ray.preparation.convert_sources import Sizes
from mixdpo_ray.preparation.derive import base_rows, committed, ids_of_index, row_keys_of
from mixdpo_ray.preparation.table_key import write_recipe
from mixdpo_ray.preparation.write_sorted import positions_of, write_all
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.tables.index import LENGTH_COLUMNS
from mixdpo_ray.tables.prepared_table import (
    BEFORE,
    RATER_MARGINS,
    Manifest,
    PreparedTable,
    with_index_seals,
    write_index,
)
from mixdpo_ray.tables.trained_rows import splits_of


def curate_table(
    recipe: Recipe, base: PreparedTable, name: str, folder: str, sizes: Sizes, trusted: PreparedTable | None = None
) -> PreparedTable:
    began = time.monotonic()
    quiet_ray_data()
    wait_for_a_cpu(recipe.cluster.start_timeout_seconds)
    curated = _curated(recipe, base, trusted)
    _check_enough(recipe, curated)
    say(writing := f"curate: writing the pairs of {base.folder} as they are now", meanwhile=writing)
    with Counter("curate", "part") as progress:
        table = committed(folder, name, lambda unfinished: _write(unfinished, recipe, base, curated, sizes, progress))
    say(f"curated from {base.folder}, in {time.monotonic() - began:.1f} s")
    return table


def _curated(recipe: Recipe, base: PreparedTable, trusted: PreparedTable | None) -> CuratedPairs:
    curate = recipe.data.curate
    if isinstance(curate, DS2):
        return curate_ratings(recipe, base, curate)
    if isinstance(curate, PerpCorrect):
        return curate_orders(recipe, base, curate, trusted)
    assert isinstance(curate, Agreement)
    return curate_by_agreement(base, curate)


def _check_enough(recipe: Recipe, curated: CuratedPairs) -> None:
    left, batch = int(curated.kept.sum()), recipe.train.global_batch_size
    if left < batch:
        raise TooFewPairsError(
            f"data.curate leaves {left} of {len(curated.kept)} pairs, fewer than train.global_batch_size {batch}: set "
            "data.curate.wrong=keep to look at what it finds, or lower the batch size"
        )


def _write(
    folder: str, recipe: Recipe, base: PreparedTable, curated: CuratedPairs, sizes: Sizes, progress: Counter
) -> Manifest:
    """Everything but the manifest's name."""
    rows = {split: np.arange(base.rows(split)) for split in splits_of(base)}
    rows["train"] = _ordered(recipe, base, curated)
    others = [base.index(split).margin for split in rows if split != "train"]
    margin, keys = np.concatenate([curated.margin[rows["train"]], *others]), row_keys_of(base, rows)
    tokens = sum(
        int(getattr(base.index(split), name)[rows[split]].sum(dtype=np.int64))
        for split in rows
        for name in LENGTH_COLUMNS
    )
    changed = base_rows(base, partial(with_curated, curated), small=tokens <= sizes.part_tokens)
    written = write_all(
        changed,
        positions_of(keys, margin, {split: len(of_split) for split, of_split in rows.items()}),
        folder,
        tokens,
        sizes.part_tokens,
        partial(progress.reach, doing="sort and write"),
    )
    seals = {split: write_index(folder, split, _index(base, split, rows[split], curated)) for split in rows}
    storage.copy(storage.join(base.folder, QUARANTINE), storage.join(folder, QUARANTINE))
    draw(storage.join(folder, MARGINS_PICTURE), curated.margin[rows["train"]], recipe.curriculum.threshold)
    storage.write_bytes(storage.join(folder, CURATION_PICTURE), draw_curation(curated, base))
    write_recipe(folder, recipe)
    exchanged, away = int((curated.exchanged & curated.kept).sum()), int((~curated.kept).sum())
    facts = {"base": base.manifest.fingerprint, CURATION: {**curated.facts, "exchanged": exchanged, "dropped": away}}
    return base.manifest.model_copy(
        update={
            "content_digest": fingerprint([written.digest, curated.noise_rate]),
            "splits": with_index_seals(written.splits, seals),
            "rows_kept": len(keys),
            "quarantined": base.manifest.quarantined | ({"curated_away": away} if away else {}),
            "notes": base.manifest.notes | ({"exchanged": exchanged} if exchanged else {}),
            "margins": margin_histogram(curated.margin[rows["train"]]),
            "facts": base.manifest.facts | recipe.curriculum.order_identity | facts,
        }
    )


def _ordered(recipe: Recipe, base: PreparedTable, curated: CuratedPairs) -> NDArray[np.int64]:
    """Positions of the base in the order of the curriculum, by margins and ids as they are now."""
    kept, curriculum = np.flatnonzero(curated.kept), recipe.curriculum
    ids = pa.table({"pair_id": ids_of_index(base.index("train"))})
    order = curriculum_order(
        curated.margin[kept],
        with_flips(ids, curated.exchanged, "exchanged")["pair_id"].take(kept),
        curriculum.physical_order,
        curriculum.seed,
        curriculum.swap_fraction,
    )
    return np.asarray(kept[order])


def with_curated(curated: CuratedPairs, split: str, rows: pa.Table) -> pa.Table:
    """Rows of the base with their ratings as they are now, and what they were in columns."""
    here = rows["position"].to_numpy()
    for name, before in BEFORE.items():
        rows = rows.append_column(before, rows[name])
    if RATER_MARGINS in rows.column_names:
        rows = rows.drop_columns([RATER_MARGINS])
    train = split == "train"
    for name in ("score_chosen", "score_rejected") if train else ():
        values = pa.array(np.asarray(getattr(curated, name)[here], np.float64))
        rows = rows.set_column(rows.column_names.index(name), name, values)
    for name, found in curated.columns.items():
        values = found[here] if train else np.full(len(here), np.nan)
        rows = rows.append_column(name, pa.array(np.asarray(values, np.float64)))
    return with_flips(rows, curated.exchanged[here] if train else np.zeros(len(here), np.bool_), "exchanged")


def _index(base: PreparedTable, split: str, members: NDArray[np.int64], curated: CuratedPairs) -> pa.Table:
    index, train = base.index(split), split == "train"
    columns: dict[str, Any] = {
        "position": np.arange(len(members)),
        "pair_id": ids_of_index(index).take(members),
        "margin": (curated.margin if train else index.margin)[members],
        **index.counts(members),
    }
    flips = curated.exchanged[members] if train else np.zeros(len(members), np.bool_)
    return with_flips(pa.table(columns), flips, "exchanged").drop_columns(["exchanged"])
