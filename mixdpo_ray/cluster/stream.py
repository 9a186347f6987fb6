"""Ray Data streams each rank its share of every window, in exact curriculum order.

Every rank runs a pipeline of its own over the prepared parts: read tasks of a few windows each, in step order,
prefetched while the model trains. Nothing depends on `streaming_split`, which deals whole blocks and breaks a
curriculum. Blocks may arrive in any cut; the plan's counts cut them again. The price is that every rank opens the row
groups of its windows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.pairs.table import PreparedTable
from mixdpo_ray.training.windows import rank_positions
from mixdpo_ray.training.world import World


class _Steps(Datasource):  # type: ignore[misc]
    """Read tasks for the positions of consecutive steps."""

    def __init__(self, folder: str, steps: list[np.ndarray[Any, np.dtype[np.int64]]], per_task: int):
        super().__init__()
        self.tasks = [(folder, steps[first : first + per_task]) for first in range(0, len(steps), per_task)]

    def estimate_inmemory_data_size(self) -> None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(lambda task=task: _read(*task), unknown) for task in self.tasks]


def _read(folder: str, steps: list[np.ndarray[Any, np.dtype[np.int64]]]) -> Iterator[pa.Table]:
    rows = PreparedTable.open(folder).read("train", np.concatenate(steps))
    start = 0
    for positions in steps:
        yield rows.slice(start, len(positions))
        start += len(positions)


class RayDataWindows:
    """A WindowSource (training/windows.py) that reads through Ray Data."""

    def __init__(self, settings: ClusterSettings):
        self.settings = settings

    def __call__(
        self, table: PreparedTable, plan: Plan, world: World, per_device: int, first_step: int, last_step: int
    ) -> Iterator[pa.Table]:
        steps = [rank_positions(table, plan, world, per_device, step) for step in range(first_step, last_step)]
        if not steps:
            return
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        source = _Steps(table.folder, steps, self.settings.windows_per_read)
        stream = ray.data.read_datasource(source, concurrency=1, override_num_blocks=len(source.tasks))
        blocks = stream.iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=self.settings.prefetch_windows
        )
        yield from recut(iter(blocks), [len(positions) for positions in steps])


def recut(blocks: Iterator[pa.Table], counts: list[int]) -> Iterator[pa.Table]:
    """Tables of the given row counts from tables of any."""
    held: list[pa.Table] = []
    rows = 0
    for count in counts:
        while rows < count:
            held.append(next(blocks))
            rows += held[-1].num_rows
        joined = pa.concat_tables(held)
        yield joined.slice(0, count)
        held, rows = [joined.slice(count)], rows - count
