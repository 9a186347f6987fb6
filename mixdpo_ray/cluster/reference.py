"""Reference log-probs, computed once per prepared table and reference model by an actor pool, and read by every run.

The sums are keyed by pair_id, so that another order, threshold or difficulty keeps them; what a lower threshold adds is
computed and appended. They come from the code and the number format that training uses.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from numpy.typing import NDArray
from transformers import AutoConfig, AutoModelForCausalLM

from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.failures import plain_errors
from mixdpo_ray.cluster.progress import Progress
from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.errors import ResourceError, WorkersError
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective
from mixdpo_ray.pairs.mismatched import mismatched_ids, mismatched_rows
from mixdpo_ray.pairs.reference_table import ReferenceTable
from mixdpo_ray.pairs.table import PreparedTable
from mixdpo_ray.recipe import Recipe, fingerprint
from mixdpo_ray.storage import join
from mixdpo_ray.training.batch import TokenRows, build_batch
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.logps import Scorer, pair_logps
from mixdpo_ray.training.model import load_model, model_digest, with_absolute_paths
from mixdpo_ray.training.settings import ModelSettings

Positions = NDArray[np.int64]
PAIRS_PER_BATCH = 16  # sorted by length first, so little of a batch is padding
BATCHES_PER_PART = 64  # what a killed run has to compute again
MISMATCHED = "mismatched"  # beside the splits: prompts of the training split with foreign answers
RETRIES = 2  # where actors die: a node went, or there is no memory


def reference_folder(recipe: Recipe, table: PreparedTable) -> str:
    """Named by what the sums depend on: model, number format, and how pairs become tokens; not beta or the order."""
    model = reference_model(recipe)
    lengths = recipe.data.model_dump(include={"max_prompt_length", "max_length", "truncation"})
    content = {
        "model": model.model_dump(mode="json", exclude={"path", "tokenizer", "chat_template"}),
        "weights": model_digest(model),
        "tokenizer": table.manifest.facts["tokenizer"],
        "lengths": lengths,
    }
    return join(recipe.output.storage_path, "reference", fingerprint(content))


def reference_model(recipe: Recipe) -> ModelSettings:
    """The starting policy without its adapters, unless the recipe names another model."""
    model = with_absolute_paths(recipe.model)
    return model.model_copy(update={"path": model.reference or model.path, "reference": None, "lora": None})


def reference(recipe: Recipe, table: PreparedTable, job: TrainingJob) -> str | None:
    """The folder of the reference table with every pair covered that the plan or the evaluation needs."""
    return cover(recipe, table, needed_positions(table, job)) if recipe.objective.needs_reference else None


def cover(recipe: Recipe, table: PreparedTable, needed: dict[str, Positions]) -> str:
    """The folder of the reference table, with every one of these positions in it."""
    folder = reference_folder(recipe, table)
    store = ReferenceTable.create(
        folder, folder.rsplit("/", 1)[-1], facts={"model": recipe.model.model_dump(mode="json")}
    )
    for retries_left in reversed(range(RETRIES + 1)):
        missing = {split: _missing(store, table, split, positions) for split, positions in needed.items()}
        if not any(map(len, missing.values())):
            break
        try:
            _compute(recipe, table, store, missing)
        except ray.exceptions.ActorDiedError as error:  # what was done before is in the store
            if not retries_left:
                raise WorkersError(
                    f"the reference model's workers died {RETRIES + 1} times ({_reason(error)}): give them more memory "
                    "(fewer of them: cluster.reference_workers) and repeat; what is done is kept"
                ) from None
    return folder


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "dead because" in line or "never ran" in line]
    return lines[0].rstrip(".") if lines else "killed, or out of memory"


def needed_positions(table: PreparedTable, job: TrainingJob) -> dict[str, Positions]:
    """The easy pairs that the plan trains, fewer than all where it is thinned or stopped early; every held-out pair."""
    compared = np.flatnonzero(job.compared(job.plan(table)))
    needed = {"train": compared, "eval": np.arange(table.rows("eval"))}
    return needed | ({MISMATCHED: compared} if reads_mismatched(job.objective) else {})


def reads_mismatched(objective: Objective) -> bool:
    return isinstance(objective, StepObjective) and objective.reads_mismatched


def _missing(store: ReferenceTable, table: PreparedTable, split: str, positions: Positions) -> Positions:
    index = table.index("train" if split == MISMATCHED else split)
    if split == MISMATCHED:
        names = mismatched_ids(index, positions.tolist())
    else:
        names = [index.pair_id[position] for position in positions]
    absent = set(store.missing(names))
    missing = np.array([position for position, name in zip(positions, names, strict=True) if name in absent], np.int64)
    longest = index.prompt_length + np.maximum(index.chosen_length, index.rejected_length)
    return missing[np.argsort(-longest[missing], kind="stable")]  # longest first: memory runs out at once or never


def _compute(recipe: Recipe, table: PreparedTable, store: ReferenceTable, missing: dict[str, Positions]) -> None:
    gpu = uses_gpu(recipe.cluster)
    model = reference_model(recipe)
    store.begin_pass()
    batches = [
        {"split": split, "positions": positions[first : first + PAIRS_PER_BATCH].tolist()}
        for split, positions in missing.items()
        for first in range(0, len(positions), PAIRS_PER_BATCH)
    ]
    workers = min(recipe.cluster.reference_workers or recipe.cluster.fewest_workers, len(batches))
    quiet_ray_data()
    chunk_tokens = recipe.train.logp_chunk_tokens
    source = ray.data.from_items(batches, override_num_blocks=math.ceil(len(batches) / 4))
    with warnings.catch_warnings():
        # the way to say max_restarts is to go in Ray 2.64, and there is no other yet
        warnings.simplefilter("ignore", DeprecationWarning)
        stage = source.map_batches(
            _Reference,
            fn_constructor_args=(table.folder, model, chunk_tokens, gpu),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if gpu else None,
            num_cpus=1,
            # on one machine a dead actor means no memory, again; and Ray warns at length about actors that may restart
            max_restarts=0 if len(ray.nodes()) == 1 else -1,
        )
    total = sum(map(len, missing.values()))
    with Progress("reference log-probs", "pair", total) as progress, plain_errors():
        _store(stage.iter_batches(batch_size=None, batch_format="pyarrow"), store, progress)


def _store(blocks: Iterator[pa.Table], store: ReferenceTable, progress: Progress) -> None:
    held: list[pa.Table] = []
    for block in blocks:
        held.append(block)
        progress.add(block.num_rows)
        if len(held) >= BATCHES_PER_PART:
            store.append(pa.concat_tables(held))
            held = []
    if held:
        store.append(pa.concat_tables(held))


def refuse_what_does_not_fit(model: ModelSettings, free: int) -> None:
    """Before anything is loaded: weights, and a tenth for activations."""
    config = AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=model.trust_remote_code)
    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config, trust_remote_code=model.trust_remote_code)
    need = 1.1 * sum(parameter.numel() for parameter in shell.parameters()) * getattr(torch, model.dtype).itemsize
    if need > free:
        raise ResourceError(
            f"the reference model {model.path} needs about {need / 2**30:.1f} GiB and a GPU has {free / 2**30:.1f} GiB "
            "free: use larger GPUs, or an objective without a reference such as simpo"
        )


class _Reference:
    """One copy of the reference model, scoring with the code and the number format of training."""

    def __init__(self, folder: str, model: ModelSettings, chunk_tokens: int, gpu: bool):
        self.table = PreparedTable.open(folder)
        self.device = torch.device("cuda" if gpu else "cpu")
        self.chunk_tokens = chunk_tokens
        if gpu:
            refuse_what_does_not_fit(model, torch.cuda.mem_get_info()[0])
        self.scorer = Scorer(load_model(model)).to(self.device).eval()

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        positions = np.sort(np.asarray(batch["positions"][0], np.int64))
        split = str(batch["split"][0])
        rows = mismatched_rows(self.table, positions) if split == MISMATCHED else self.table.read(split, positions)
        tokens = TokenRows.of(rows, positions)
        easy = np.zeros(len(positions), np.bool_)
        flat = build_batch(tokens, positions, easy, None, weight=1, padding=0, device=self.device)
        with torch.inference_mode():
            sums = pair_logps(self.scorer, flat, -(-len(flat.targets) // self.chunk_tokens)).easy
        return pa.table(
            {
                "pair_id": rows["pair_id"],
                "ref_chosen_logp": sums.chosen.float().cpu().numpy(),
                "ref_rejected_logp": sums.rejected.float().cpu().numpy(),
            }
        )
