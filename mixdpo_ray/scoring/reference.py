"""Reference log-probs, computed once per prepared table and reference model by an actor pool, and read by every run.

The sums are keyed by pair_id, so that another order, threshold or difficulty keeps them; what a lower threshold adds is
computed and appended. They come from the code and the number format that training uses. Sums of packed and of padded
rows differ in the last bits, and either kind is read where it is there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.actor_pool import Pool, SplitPositions, pairs_tokens
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.scoring_way import scored_model
from mixdpo_ray.errors import ResourceError
from mixdpo_ray.objectives.step_objective import reads_mismatched
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.storage import join
from mixdpo_ray.tables.keyed_table import KeyedTable
from mixdpo_ray.tables.mismatched import MISMATCHED, rows_of
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import TOKENS, ReferenceTable, TokenReferenceTable
from mixdpo_ray.training.batch import PairBatch, TokenRows, build_batch
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.logps import Scorer, pair_logps
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.model_files import model_digest, with_absolute_paths
from mixdpo_ray.training.model_loading import ModelLoading
from mixdpo_ray.training.scoring_pass import sums_table
from mixdpo_ray.training.settings import LoraSettings, ModelSettings
from mixdpo_ray.wording import size_text


def reference_folder(recipe: Recipe, table: PreparedTable) -> str:
    """Named by what the sums depend on: model, number format, and how pairs become tokens; not beta or the order."""
    model = reference_model(recipe)
    lengths = recipe.data.model_dump(include={"max_prompt_length", "max_length", "truncation"})
    content = {
        "model": model.logps_identity(),
        "weights": model_digest(model),
        "tokenizer": table.manifest.facts["tokenizer"],
        "lengths": lengths,
    }
    return join(storage.absolute(recipe.output.storage_path), "reference", fingerprint(content))


def reference_model(recipe: Recipe) -> ModelSettings:
    """The starting policy without its adapters, or with the one that it names; unless the recipe names another model.

    A base in 4 bits is the reference in 4 bits, with adapters of zero.
    """
    model = with_absolute_paths(recipe.model)
    lora = model.lora
    if lora is None or lora.reference != "adapter":
        lora = LoraSettings(rank=1, quantize=True) if lora is not None and lora.quantize else None
    return model.model_copy(update={"path": model.reference or model.path, "reference": None, "lora": lora})


def reference(recipe: Recipe, table: PreparedTable, job: TrainingJob, *, reuse_told: bool = True) -> str | None:
    """The folder of the reference table with every pair covered that the plan or the evaluation needs.

    `reuse_told`: say so where nothing has to be computed.
    """
    if not recipe.needs_reference:
        return None
    needed = needed_positions(table, job)
    if recipe.needs_tokens:
        cover_tokens(recipe, table, needed, reuse_told=reuse_told)
    return cover(recipe, table, needed, reuse_told=reuse_told)


def cover(recipe: Recipe, table: PreparedTable, needed: dict[str, SplitPositions], *, reuse_told: bool = True) -> str:
    """The folder of the reference table, with every one of these positions in it."""
    pool = logps_pool(recipe, table, reference_model(recipe), "reference values")
    folder = reference_folder(recipe, table)
    return _cover(recipe, table, needed, ReferenceTable, folder, pool, reuse_told)


def cover_tokens(
    recipe: Recipe, table: PreparedTable, needed: dict[str, SplitPositions], *, reuse_told: bool = True
) -> str:
    """The same of single tokens, in a table of its own: it is as large as the tokens themselves."""
    pool = logps_pool(recipe, table, reference_model(recipe), "reference values of tokens")
    folder = reference_folder(recipe, table) + TOKENS
    pool = replace(pool, actor=_TokenReference)
    return _cover(recipe, table, needed, TokenReferenceTable, folder, pool, reuse_told)


def _cover(
    recipe: Recipe,
    table: PreparedTable,
    needed: dict[str, SplitPositions],
    kind: type[KeyedTable],
    folder: str,
    pool: Pool,
    reuse_told: bool,
) -> str:
    with exclusive(folder):
        facts = {"model": recipe.model.model_dump(mode="json")}
        store = kind.create(folder, folder.rsplit("/", 1)[-1], facts)
        computed = actor_pool.cover_positions(pool, table, store, needed)
    if computed:
        say(f"{pool.title}: {computed:,} pairs done, and kept for later runs")
    elif reuse_told:
        say(f"{pool.title}: reused")
    return folder


def logps_pool(recipe: Recipe, table: PreparedTable, model: ModelSettings, title: str) -> Pool:
    tokens = pairs_tokens(recipe)
    return Pool(
        title=title,
        workers="reference model's workers",
        actor=_Reference,
        arguments=(table.folder, model, recipe.train.logp_chunk_tokens),
        gpu=uses_gpu(recipe.cluster),
        settings=recipe.cluster,
        scored=scored_model(recipe, model, tokens, min(tokens, recipe.train.logp_chunk_tokens)),
    )


def needed_positions(table: PreparedTable, job: TrainingJob) -> dict[str, SplitPositions]:
    """The easy pairs that the plan trains, fewer than all where it is thinned or stopped early; every held-out pair."""
    positions = np.flatnonzero(job.reference_positions(job.plan(table)))
    needed = {"train": positions, "eval": np.arange(table.rows("eval"))}
    return needed | ({MISMATCHED: positions} if reads_mismatched(job.objective) else {})


@contextmanager
def fetched(model: ModelSettings) -> Iterator[ModelSettings]:
    """Provide a model on this machine's disk while the body runs, where a training left it in an object store."""
    if storage.is_local(model.path):
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        storage.copy(model.path, folder)
        yield model.model_copy(update={"path": folder})


def refuse_what_does_not_fit(
    model: ModelSettings,
    free: int,
    kind: str = "AutoModelForCausalLM",
    what: str = "the reference model",
    remedy: str = "set cluster.scoring=sharded, use larger GPUs, or an objective without a reference such as simpo",
) -> None:
    """Before anything is loaded: weights, and a tenth for activations. `kind`: the Auto class of transformers."""
    import transformers

    trust = model.trust_remote_code
    config = transformers.AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=trust)
    with torch.device("meta"):
        shell = getattr(transformers, kind).from_config(config, trust_remote_code=trust)
    need = 1.1 * sum(parameter.numel() for parameter in shell.parameters()) * getattr(torch, model.dtype).itemsize
    if need > free:
        needs = f"{size_text(need)} and a GPU has {size_text(free)} free"
        raise ResourceError(f"{what} {model.path} needs about {needs}: {remedy}")


def check_room(model: ModelSettings, loading: ModelLoading, what: str, kind: str = "AutoModelForCausalLM") -> None:
    """Refuse a model that is to lie whole on a GPU that has no room for it."""
    if loading.on_gpu and not loading.sharded:
        free, remedy = torch.cuda.mem_get_info()[0], "set cluster.scoring=sharded, or use larger GPUs"
        refuse_what_does_not_fit(model, free, kind, what, remedy)


class _Reference:
    """One copy of the reference model, scoring with the code and the number format of training."""

    def __init__(self, folder: str, model: ModelSettings, chunk_tokens: int, loading: ModelLoading):
        self.table = PreparedTable.open(folder)
        self.loading, self.chunk_tokens = loading, chunk_tokens
        with fetched(model) as here:
            check_room(here, loading, "the reference model")
            self.scorer = loading.load(lambda: Scorer(load_model(here), here.packing, here.kernels), here.dtype)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        rows, flat = self._batch(batch)
        with torch.inference_mode():
            sums = pair_logps(self.scorer, flat, self._chunks(flat)).easy
        return sums_table(rows, sums)

    def _batch(self, batch: dict[str, Any]) -> tuple[pa.Table, PairBatch]:
        positions = np.sort(np.asarray(batch["positions"][0], np.int64))
        rows = rows_of(self.table, str(batch["split"][0]), positions)
        tokens, easy = TokenRows.of(rows, positions), np.zeros(len(positions), np.bool_)
        kind, device = self.loading.row_kind(packed=self.scorer.packed), self.loading.torch_device
        return rows, build_batch(tokens, positions, easy, None, weight=1, padding=0, device=device, rows=kind)

    def _chunks(self, batch: PairBatch) -> int:
        return self.loading.most(-(-len(batch.targets) // self.chunk_tokens))


class _TokenReference(_Reference):
    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        rows, flat = self._batch(batch)
        with torch.inference_mode():
            tokens = self.scorer(flat, self._chunks(flat)).float().cpu().numpy()  # [chosen, then rejected; longest]
        lengths = flat.lengths.cpu().numpy().astype(np.int64)
        lists = [line[:length] for line, length in zip(tokens, lengths, strict=True)]
        return pa.table(
            {
                "pair_id": rows["pair_id"],
                "ref_chosen_logps": pa.array(lists[: flat.easy], pa.list_(pa.float32())),
                "ref_rejected_logps": pa.array(lists[flat.easy :], pa.list_(pa.float32())),
            }
        )
