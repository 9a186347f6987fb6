"""Ray Data streams each rank its share of every window, in exact curriculum order.

Every rank runs a pipeline of its own over the prepared parts: read tasks of a few windows each, in step order,
prefetched while the model trains. Nothing depends on `streaming_split`, which deals whole blocks and breaks a
curriculum. Blocks may arrive in any cut; the plan's counts cut them again. The price is that every rank opens the row
groups of its pairs.

The steps are streamed in stretches, each a pipeline of its own: Ray Data wants all read tasks of a pipeline at once,
and for a large table that is minutes of dealing out shares before the first window. A stretch begins when the one
before it has read everything, so that a rank never holds more than one CPU, and while its last windows are trained.

The first windows are read without Ray Data, which takes 8 s to start: it starts behind the first step, while they are
trained. A run that they last for never starts it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.trained_rows import read_trained
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.windows import rank_positions, read_windows
from mixdpo_ray.training.world import World

STRETCH_PAIRS = 1 << 18  # dealing them out takes about half a second, in a world of any size
PLAIN_PAIRS = 1 << 12  # read plainly at the beginning: the smallest models train 500 a second
READ_AHEAD = 4  # windows that wait for training: more take memory, fewer let it wait for one slow read
WINDOWS_PER_READ = 10  # a read task keeps its CPU until its last window is asked for: long ones starve other ranks


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
    wanted, at = np.unique(np.concatenate(steps), return_inverse=True)
    rows = read_trained(PreparedTable.open(folder), wanted).take(at)
    start = 0
    for positions in steps:
        yield rows.slice(start, len(positions))
        start += len(positions)


class RayDataWindows:
    """A WindowSource (training/windows.py) that reads through Ray Data."""

    def __init__(
        self,
        *,
        plain_pairs: int = PLAIN_PAIRS,
        stretch_pairs: int = STRETCH_PAIRS,
        per_read: int = WINDOWS_PER_READ,
        read_ahead: int = READ_AHEAD,
    ):
        self.plain_pairs, self.stretch_pairs = plain_pairs, stretch_pairs
        self.per_read, self.read_ahead = per_read, read_ahead

    def __call__(
        self, table: PreparedTable, plan: Plan, world: World, kind: RowKind, first_step: int, last_step: int
    ) -> Iterator[pa.Table]:
        behind = min(last_step, first_step + self.plain_pairs // plan.global_batch)
        plain = read_windows(table, plan, world, kind, first_step, behind)
        yield from islice(plain, 1)  # nothing shares the CPUs with the first step
        streamed = ahead(self._streamed(table, plan, world, kind, range(behind, last_step)), self.read_ahead)
        yield from ahead(plain, self.read_ahead)
        yield from streamed

    def _streamed(
        self, table: PreparedTable, plan: Plan, world: World, kind: RowKind, steps: range
    ) -> Iterator[pa.Table]:
        if steps:
            quiet_ray_data()
            ray.data.DataContext.get_current().execution_options.preserve_order = True
        stretch = self._stretch_steps(plan.global_batch)
        for first in range(0, len(steps), stretch):
            yield from self._stretch(table, plan, world, kind, steps[first : first + stretch])

    def _stretch_steps(self, global_batch: int) -> int:
        """Whole read tasks, and at least one."""
        return self.per_read * max(1, self.stretch_pairs // (global_batch * self.per_read))

    def _stretch(
        self, table: PreparedTable, plan: Plan, world: World, kind: RowKind, steps: range
    ) -> Iterator[pa.Table]:
        positions = [rank_positions(table, plan, world, kind, step) for step in steps]
        source = _Steps(table.folder, positions, self.per_read)
        stream = ray.data.read_datasource(source, concurrency=1, override_num_blocks=len(source.tasks))
        blocks = stream.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
        with plain_errors():  # a damaged part ends the job: started again, a worker would only read it again
            yield from recut(iter(blocks), [len(rows) for rows in positions])


def ahead(windows: Iterator[pa.Table], count: int) -> Iterator[pa.Table]:
    """The same windows; a thread pulls up to `count` of them before they are asked for, and begins at once."""
    thread = ThreadPoolExecutor(1, "windows")
    return _handed_on(windows, thread, deque(thread.submit(next, windows, None) for _ in range(count)))


def _handed_on(
    windows: Iterator[pa.Table], thread: ThreadPoolExecutor, pulled: deque[Future[pa.Table | None]]
) -> Iterator[pa.Table]:
    try:
        while (window := pulled.popleft().result()) is not None:
            pulled.append(thread.submit(next, windows, None))
            yield window
    finally:
        thread.shutdown(wait=False, cancel_futures=True)


def recut(blocks: Iterator[pa.Table], counts: list[int]) -> Iterator[pa.Table]:
    """Tables of the given row counts from tables of any."""
    held: list[pa.Table] = []
    rows = 0
    for count in counts:
        while rows < count:
            held.append(next(blocks))
            rows += held[-1].num_rows
        joined = pa.concat_tables(held, promote_options="default")  # rows of data.sft may have other columns than pairs
        yield joined.slice(0, count)
        held, rows = [joined.slice(count)], rows - count
