"""Prepare a table from raw pairs: read, check, tokenise, order, write; once for every run and every search.

    sources -> pieces -> converted rows (object store) -> narrow keys (driver) -> positions -> sorted parts -> manifest

Ordering needs all pairs at once but only their ids and margins: keys come to the driver, and rows with their tokens
are sorted by Ray Data (write_sorted.py). Measured on two cores with pairs of 900 tokens: Dataset.sort moves and writes
45 MB/s, and the driver holds 250 MB of a table of 1.1 GB; collecting the rows on the driver was 2.7 times as fast at
0.2 GB, but needs the memory of the whole table three times over.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mixdpo_ray import storage
from mixdpo_ray.bar import Counter, going_on, say
from mixdpo_ray.cluster.folder_lock import atomic_folder, exclusive, prepared_folder
from mixdpo_ray.cluster.free_cpus import wait_for_a_cpu
from mixdpo_ray.cluster.preflight import ready_cluster
from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.curation.report import CURATION, CURATION_PICTURE, curation_text
from mixdpo_ray.curriculum.routing import doubt_of_threshold
from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.pairs.checking import SEVERAL_RATERS
from mixdpo_ray.pairs.histogram import margin_histogram
from mixdpo_ray.pairs.quarantine import QUARANTINE, Quarantine, check_enough, check_enough_rows
from mixdpo_ray.pairs.report import MARGINS_PICTURE, accounting_text, draw, histogram_text, thresholds_text
from mixdpo_ray.pairs.settings import SFT_SOURCE
from mixdpo_ray.pairs.split_and_order import Arrangement, arrange
from mixdpo_ray.pairs.tokens import PairTokenizer
from mixdpo_ray.pairs.unknown_tokens import unknown_tokens
from mixdpo_ray.preparation import mixture
from mixdpo_ray.preparation.convert_sources import SIZES, ConvertedRows, Sizes, convert_sources
from mixdpo_ray.preparation.convert_tasks import LENGTHS, conversions_of
from mixdpo_ray.preparation.derive import derive
from mixdpo_ray.preparation.held_out import held_out_text, lack_of_held_out
from mixdpo_ray.preparation.refused_rows import (
    BY_SOURCE,
    check_budgets,
    check_budgets_again,
    counts_by_source,
    refused_rows,
)
from mixdpo_ray.preparation.sources import Source, find_sources
from mixdpo_ray.preparation.table_key import (
    base_recipe,
    is_derived,
    table_name,
    trusted_recipes,
    uncurated,
    write_recipe,
)
from mixdpo_ray.preparation.tokenizer_digest import digest_of_tokenizer
from mixdpo_ray.preparation.write_sorted import positions_of, write_all
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.held_out_sets import SET_ROWS
from mixdpo_ray.tables.index import SCORED
from mixdpo_ray.tables.prepared_table import (
    RATER_MARGINS,
    Manifest,
    PreparedTable,
    commit,
    with_index_seals,
    write_index,
)
from mixdpo_ray.tables.runs import RUNS, scored_columns
from mixdpo_ray.tables.trained_rows import SFT_SPLIT, sft_rows
from mixdpo_ray.tables.verification import verify_parts
from mixdpo_ray.training.tokenizer import load_tokenizer, tokenizer_digest
from mixdpo_ray.training.vocabulary import check_vocabulary

LARGEST_ID = "largest_token_id"  # among a table's facts, for other models with the same tokenizer
ROWS_LOOKED_AT = 64  # that are looked at for words that the tokenizer does not know
SAMPLES = "source_samples"  # among the facts of a table


@dataclass(frozen=True)
class PreparationReport:
    table: PreparedTable
    recipe: Recipe

    def describe(self) -> str:
        folder = self.table.folder
        index, curriculum = self.table.index("train"), self.recipe.curriculum
        hard = curriculum.threshold.hard_pairs(index.difficulty)
        warning = doubt_of_threshold(curriculum, hard, index.difficulty)
        names = [MARGINS_PICTURE, *([CURATION_PICTURE] if CURATION in self.table.manifest.facts else [])]
        shown = [one for name in names if storage.exists(one := storage.join(folder, name))]
        lines = (f"prepared table: {folder}", *(f"picture: {one}" for one in shown))
        warned = ["", f"warning: {warning}"] if warning else []  # train and the doctor say it of a plan
        return "\n".join([describe_table(self.table, self.recipe), *warned, "", *lines])


def prepare(recipe: Recipe) -> PreparationReport:
    """Make the recipe's table, unless it is there, for every run and search that asks for the same one."""
    with ready_cluster(recipe, trains=recipe.trains_for(recipe.metrics_used)):
        return PreparationReport(prepared_table(recipe, described=False), recipe)


def prepared_table(
    recipe: Recipe, sizes: Sizes = SIZES, *, described: bool = True, as_base: bool = False
) -> PreparedTable:
    """The table that the recipe asks for, made if it does not exist yet (and then described). Ray must be connected.

    `as_base`: others are derived from it, and its curriculum is nobody's choice.
    """
    going_on("prepare: looking at the sources and the tokenizer")
    sources = find_sources(recipe.data)
    name = table_name(recipe, digest_of_tokenizer(recipe.model, recipe.output.storage_path), sources)
    folder = prepared_folder(recipe.output.storage_path, name)
    with exclusive(folder):
        found = PreparedTable.committed(folder)
        if found:
            table = PreparedTable.open(folder)
            verify_parts(table)
            say(f"prepared table: reused, {folder}")
            _refuse_changed_sources(table, recipe, sources)
            _check_again(table, recipe)
        elif is_derived(recipe):
            base = prepared_table(base_recipe(recipe), sizes, described=False, as_base=True)
            with plain_errors():
                table = derive(recipe, base, name, folder, sizes)
        elif recipe.data.curate is not None:
            from mixdpo_ray.preparation.curate import curate_table  # torch

            trusted = [prepared_table(one, sizes, described=False, as_base=True) for one in trusted_recipes(recipe)]
            base = prepared_table(uncurated(recipe), sizes, described=False, as_base=True)
            with plain_errors():
                table = curate_table(recipe, base, name, folder, sizes, *trusted)
        else:
            quiet_ray_data()
            wait_for_a_cpu(recipe.cluster.start_timeout_seconds)
            with plain_errors():
                table = _make(recipe, sources, load_tokenizer(recipe.model), name, folder, sizes)
    if described and not found:
        print(describe_table(table, recipe, as_base=as_base))
    return table


def _refuse_changed_sources(table: PreparedTable, recipe: Recipe, sources: list[Source]) -> None:
    """The table's name knows the sizes and times of the sources' files alone; tables of before know no more."""
    before = table.manifest.facts.get(SAMPLES, [None] * len(sources))
    for setting, source, sample in zip(recipe.data.by_source, sources, before, strict=True):
        if sample is not None and source.sample() != sample:
            raise PreparedTableError(
                f"{setting} {source.name} has changed, though not its files' sizes and times, since {table.folder} "
                f"was prepared from it: {table.remedy}"
            )


def _check_again(table: PreparedTable, recipe: Recipe) -> None:
    """The table's name says nothing about the limits that it must keep."""
    check_vocabulary(recipe.model, table.manifest.facts.get(LARGEST_ID, 0))
    check_budgets_again(recipe.data, table)
    check_enough(table.rows("train"), table.manifest.quarantined, recipe.train.global_batch_size)


def _make(recipe: Recipe, sources: list[Source], tokenizer: Any, name: str, folder: str, sizes: Sizes) -> PreparedTable:
    began = time.monotonic()
    largest = PairTokenizer(tokenizer, recipe.data).largest_id
    check_vocabulary(recipe.model, largest)
    samples = [source.sample() for source in sources]  # before anything is read: what changes meanwhile is noticed
    conversions = conversions_of(recipe, sources, tokenizer)
    mixture.refuse_mixed_scales(conversions)
    reading = f"prepare: reading {', '.join(source.name for source in sources)}"
    say(reading, meanwhile=reading)
    with Counter("prepare", "task") as progress:
        named = dict(zip(recipe.data.by_source, sources, strict=True))
        staged = convert_sources(named, conversions, sizes, partial(progress.reach, doing="read, check, tokenise"))
        read = time.monotonic()
        ranked, weights = conversions[0].data.margin_scale == "quantile", mixture.mix_weights(recipe.data)
        arranged = arrange(staged.keys, recipe.data.heldout, recipe.curriculum, ranked, weights, recipe.data.sft)
        quarantine = refused_rows(staged, arranged)
        counts = counts_by_source(staged, quarantine)
        check_budgets(recipe.data, counts, quarantine, f"{folder}.{QUARANTINE}")
        check_enough(len(arranged.train), quarantine.counts, recipe.train.global_batch_size)
        if arranged.sft is not None:
            check_enough_rows(len(arranged.sft), quarantine.of_source(SFT_SOURCE).counts)
        with atomic_folder(folder) as unfinished:
            manifest = _write(
                unfinished, staged, arranged, quarantine, sizes, partial(progress.reach, doing="sort and write")
            )
            draw(
                storage.join(unfinished, MARGINS_PICTURE),
                arranged.margin[arranged.train],
                recipe.curriculum.threshold,
                sources=mixture.trained_by_source(recipe.data, staged, arranged),
            )
            write_recipe(unfinished, recipe)
            facts = {
                "format": [conversion.format for conversion in conversions],
                "margin_scale": [conversion.data.margin_scale for conversion in conversions],
                "tokenizer": tokenizer_digest(tokenizer),
                LARGEST_ID: largest,
                SAMPLES: samples,
                BY_SOURCE: counts,
                **({SET_ROWS: arranged.sets} if arranged.sets else {}),
                **mixture.facts_by_source(staged, arranged, counts),
                **recipe.curriculum.order_identity,
            }
            commit(unfinished, manifest.model_copy(update={"fingerprint": name, "facts": facts}))
    table = PreparedTable.open(folder)
    say(f"read, checked and tokenised in {read - began:.1f} s, sorted and written in {time.monotonic() - read:.1f} s")
    first = table.read("train", np.arange(min(ROWS_LOOKED_AT, table.rows("train"))))
    if unknown := unknown_tokens(first, tokenizer):
        say(f"warning: {unknown}")
    return table


def describe_table(table: PreparedTable, recipe: Recipe, *, as_base: bool = False) -> str:
    """What a person looks at before choosing a threshold."""
    manifest, index, metric = table.manifest, table.index("train"), recipe.curriculum.difficulty
    held = f"{table.rows('train')} pairs to train on, {held_out_text(table)}"
    held += f"; {sft_rows(table)} rows for SFT among the hard pairs" if sft_rows(table) else ""
    own = None if as_base or recipe.curriculum.mode == "sorted_dpo" else recipe.curriculum.threshold
    lack = lack_of_held_out(recipe, table)
    other = [] if index.metric is None else [histogram_text(margin_histogram(index.difficulty), metric)]
    rated = len(manifest.margins.count) > 1 or not other  # one margin of all pairs says nothing beside another metric
    later = not manifest.quarantined.keys().isdisjoint(("not_selected", "curated_away"))
    curated = [] if as_base or CURATION not in manifest.facts else [_curation(table)]
    return "\n\n".join(
        [
            accounting_text(manifest.rows_in, manifest.rows_kept, manifest.quarantined, manifest.notes),
            *(
                [mixture.described(manifest.facts[mixture.MIXTURE], later=later)]
                if mixture.MIXTURE in manifest.facts
                else []
            ),
            *curated,
            held,
            *([histogram_text(manifest.margins)] if rated else []),
            *other,
            thresholds_text(index.difficulty, recipe.train.global_batch_size, own),
            *([f"warning: {lack}"] if lack else []),
        ]
    )


def _curation(table: PreparedTable) -> str:
    facts = table.manifest.facts[CURATION]
    return curation_text(facts, table.rows("train") + facts["dropped"])


def _write(
    folder: str,
    staged: ConvertedRows,
    arranged: Arrangement,
    quarantine: Quarantine,
    sizes: Sizes,
    done: Callable[[int, int], None],
) -> Manifest:
    """Everything but the manifest's names for it."""
    splits = {"train": arranged.train, "eval": arranged.heldout}
    if arranged.sft is not None:
        splits[SFT_SPLIT] = arranged.sft
    order = np.concatenate(list(splits.values()))
    lengths = [f"{name}_length" for name in LENGTHS]
    keys = staged.keys.select(["row_key", *lengths]).take(order)
    tokens = sum(pc.sum(keys[name]).as_py() for name in lengths)
    where = positions_of(
        np.asarray(keys["row_key"].to_numpy()),
        arranged.margin[order],
        {split: len(members) for split, members in splits.items()},
    )
    scored = scored_columns(staged.keys)
    several_raters = SEVERAL_RATERS in staged.notes
    where = replace(where, without=(*SCORED, *(() if several_raters else (RATER_MARGINS,)), *(() if scored else RUNS)))
    written = write_all(staged.rows, where, folder, tokens, sizes.part_tokens, done)
    seals = {}
    for split, members in splits.items():
        index = staged.keys.select(["pair_id", *lengths, *scored]).take(members)
        index = index.append_column("margin", pa.array(arranged.margin[members]))
        seals[split] = write_index(folder, split, index.append_column("position", pa.array(np.arange(len(members)))))
    quarantine.write(storage.join(folder, QUARANTINE))
    return Manifest(
        fingerprint="",
        content_digest=written.digest,
        splits=with_index_seals(written.splits, seals),
        rows_in=staged.rows_in,
        rows_kept=len(order),
        quarantined=quarantine.counts,
        notes=staged.notes,
        margins=margin_histogram(arranged.margin[arranged.train]),
    )
