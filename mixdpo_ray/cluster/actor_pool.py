"""Batches through a pool of actors, of which each loads its model once; and numbers for a prepared table's pairs by it.

The longest pairs come first, what is computed is appended as it comes, and only what is missing is computed: a killed
run, another order or more pairs cost what they lack.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.node_labels import gpu_node_options
from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.cluster.ray_errors import error_of_making, plain_errors
from mixdpo_ray.cluster.scoring_way import ScoredModel, WayOfScoring, way_of_scoring
from mixdpo_ray.cluster.sharded_answers import answers_in_shards
from mixdpo_ray.cluster.sharded_pass import ShardedPass
from mixdpo_ray.errors import WorkersError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.keyed_table import KeyedTable
from mixdpo_ray.tables.mismatched import ids_of, index_of
from mixdpo_ray.tables.prepared_table import PreparedTable

SplitPositions = NDArray[np.int64]
PAIRS_PER_BATCH = 16  # sorted by length first, so little of a batch is padding
PAIRS_PER_PART = 1024  # what a killed run has to compute again
RETRIES = 2  # where actors die: a node went, or there is no memory


@dataclass(frozen=True)
class Pool:
    title: str  # of the bar
    workers: str  # what dies, in an error
    actor: type  # called with one batch; answers with rows. Of pairs: {split, positions}, rows of a keyed table
    arguments: tuple[Any, ...]  # behind them it is handed how models are loaded (training/model_loading.py)
    gpu: bool
    settings: ClusterSettings
    scored: ScoredModel | None = None  # the model that it loads, which may need more than one worker has

    @cached_property
    def way(self) -> WayOfScoring:
        """Needs Ray."""
        if self.scored is None:
            return WayOfScoring(False, "")
        return way_of_scoring(self.scored, self.settings, gpu=self.gpu)

    def workers_text(self, workers: int) -> str:
        """Who goes through the batches, for people."""
        return self.way.text if self.way.sharded else copies_text(workers)


def cover_positions(pool: Pool, table: PreparedTable, store: KeyedTable, needed: Mapping[str, SplitPositions]) -> int:
    """How many pairs were computed, so that the store has all those at these positions, by split."""
    computed = 0

    def attempt() -> None:
        nonlocal computed
        missing = {split: _missing(store, table, split, positions) for split, positions in needed.items()}
        if any(map(len, missing.values())):
            computed = computed or sum(map(len, missing.values()))
            _compute(pool, store, missing)

    until_done(attempt, pool.workers, "cluster.reference_workers")
    return computed


def until_done(attempt: Callable[[], None], workers: str, setting: str) -> None:
    """Attempt it again where actors die. An attempt does what is missing, and keeps what it has done.

    `workers`: what dies, in an error; `setting`: of how many there are.
    """
    for retries_left in reversed(range(RETRIES + 1)):
        try:
            attempt()
            return
        except ray.exceptions.ActorDiedError as error:
            if error.actor_init_failed:  # no death, but what its making raised; another would raise it again
                raise error_of_making(error) or error from None
            if not retries_left:
                raise WorkersError(
                    f"the {workers} died {RETRIES + 1} times ({_reason(error)}): give them more memory "
                    f"(fewer of them: {setting}) and repeat; what is done is kept"
                ) from None
            again = f"starting them again, {RETRIES + 2 - retries_left} of {RETRIES + 1}"
            say(f"warning: the {workers} died ({_reason(error)}); {again}")


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if "dead because" in line or "never ran" in line]
    return lines[0].rstrip(".") if lines else "killed, or out of memory"


def _missing(store: KeyedTable, table: PreparedTable, split: str, positions: SplitPositions) -> SplitPositions:
    index, names = index_of(table, split), ids_of(table, split, positions)
    absent = set(store.missing(names))
    missing = np.array([position for position, name in zip(positions, names, strict=True) if name in absent], np.int64)
    longest = index.prompt_length + np.maximum(index.chosen_length, index.rejected_length)
    return missing[np.argsort(-longest[missing], kind="stable")]  # longest first: memory runs out at once or never


def _compute(pool: Pool, store: KeyedTable, missing: Mapping[str, SplitPositions]) -> None:
    store.begin_pass()
    batches = [
        {"split": split, "positions": positions[first : first + PAIRS_PER_BATCH].tolist()}
        for split, positions in missing.items()
        for first in range(0, len(positions), PAIRS_PER_BATCH)
    ]
    workers = min(pool.settings.reference_workers or pool.settings.fewest_workers, len(batches))
    total = sum(map(len, missing.values()))
    copies = pool.workers_text(workers)
    say(f"{pool.title}: {total:,} pairs to go through, by {copies}", meanwhile=f"{pool.title}: starting {copies}")
    with Counter(pool.title, "pair", total) as progress:
        _store(answers_to(pool, batches, workers), store, progress)


def copies_text(workers: int) -> str:
    return f"{workers} {'copies' if workers > 1 else 'copy'} of the model"


def pairs_tokens(recipe: Recipe) -> int:
    """The most tokens of a batch of pairs."""
    return 2 * PAIRS_PER_BATCH * recipe.data.max_length


def answers_to(
    pool: Pool, batches: Sequence[Mapping[str, Any]], workers: int, *, at_once: int = 4
) -> Iterator[pa.Table]:
    """What actors answer to batches, as it comes. `at_once`: batches whose answers arrive together.

    A model that no worker can hold lies in shards over all of them (sharded_answers.py).
    """
    if pool.scored is not None and pool.way.sharded:
        shards = ShardedPass(pool.title, pool.actor, pool.arguments, pool.scored.offload)
        yield from answers_in_shards(shards, batches, pool.settings, pool.scored.storage_path)
        return
    from mixdpo_ray.training.model_loading import Whole  # brings torch

    quiet_ray_data()
    source = ray.data.from_items(list(batches), override_num_blocks=math.ceil(len(batches) / at_once))
    with warnings.catch_warnings():
        # the way to say max_restarts is to go in Ray 2.64, and there is no other yet
        warnings.simplefilter("ignore", DeprecationWarning)
        stage = source.map_batches(
            pool.actor,
            fn_constructor_args=(*pool.arguments, Whole("cuda" if pool.gpu else "cpu")),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_gpus=1 if pool.gpu else None,
            num_cpus=1,
            **(gpu_node_options(pool.settings) if pool.gpu else {}),
            # on one machine a dead actor means no memory, again; and Ray warns at length about actors that may restart
            max_restarts=0 if len(ray.nodes()) == 1 else -1,
        )
    with plain_errors():
        yield from stage.iter_batches(batch_size=None, batch_format="pyarrow")


def _store(blocks: Iterator[pa.Table], store: KeyedTable, progress: Counter) -> None:
    held: list[pa.Table] = []
    for block in blocks:
        held.append(block)
        progress.add(block.num_rows)
        if sum(part.num_rows for part in held) >= PAIRS_PER_PART:
            store.append(pa.concat_tables(held))
            held = []
    if held:
        store.append(pa.concat_tables(held))
