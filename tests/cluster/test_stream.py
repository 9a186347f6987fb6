"""The curriculum is exact for any number of workers, and after a resume with another number of them."""

import hashlib
import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mixdpo_ray.cluster.stream import STRETCH_PAIRS, RayDataWindows, ahead, recut
from mixdpo_ray.curriculum.plan import Plan, Window, make_plan
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.tables.prepared_table import (
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.windows import read_windows
from mixdpo_ray.training.world import World

ROWS, HARD, BATCH = 250, 61, 24
EASY_STEPS, HARD_STEPS = 8, 3  # 189 easy and 61 hard pairs in windows of 24: both stages end with a short one


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> PreparedTable:
    """Parts of 1, 100 and 149 rows, so that neither parts nor row groups align with windows."""
    folder = str(tmp_path_factory.mktemp("prepared"))
    random = np.random.default_rng(0)

    def ids(lengths: np.ndarray) -> pa.Array:
        return pa.array([random.integers(3, 64, length).astype(np.int32) for length in lengths])

    rows = pa.table(
        {
            "position": np.arange(ROWS),
            "pair_id": [hashlib.sha256(bytes([row])).hexdigest()[:32] for row in range(ROWS)],
            "prompt_ids": ids(random.integers(1, 30, ROWS)),
            "chosen_ids": ids(random.integers(1, 40, ROWS)),
            "rejected_ids": ids(random.integers(1, 40, ROWS)),
            "score_chosen": np.full(ROWS, 9.0),
            "score_rejected": np.full(ROWS, 1.0),
            "margin": np.linspace(9, 0, ROWS),
        }
    )
    starts = (0, 1, 101)
    for first, end in zip(starts, (1, 101, ROWS), strict=True):
        write_part(folder, "train", rows.slice(first, end - first))
    write_index(folder, "train", index_rows(rows))
    splits = {"train": SplitFacts(rows=ROWS, first_positions=starts)}
    commit(folder, Manifest(fingerprint="test", splits=splits, rows_in=ROWS, rows_kept=ROWS))
    return PreparedTable.open(folder)


@pytest.fixture(scope="module")
def plan() -> Plan:
    hard = np.arange(ROWS) >= ROWS - HARD
    return make_plan(CurriculumSettings(), hard, BATCH, epochs=1)


def pairs_of_each_step(
    table: PreparedTable,
    plan: Plan,
    world: int,
    first: int,
    plain_pairs: int = 0,
    stretch_pairs: int = STRETCH_PAIRS,
) -> list[list[str]]:
    """What all ranks together were given, step by step."""
    source = RayDataWindows(per_read=3, plain_pairs=plain_pairs, stretch_pairs=stretch_pairs)
    streams = [source(table, plan, World(rank, world), "grouped", first, plan.steps) for rank in range(world)]
    return [
        sorted(pair for rows in steps for pair in rows["pair_id"].to_pylist()) for steps in zip(*streams, strict=True)
    ]


def planned(table: PreparedTable, plan: Plan, first: int) -> list[list[str]]:
    index = table.index("train")
    return [sorted(index.pair_id[p] for p in plan.window(step).positions) for step in range(first, plan.steps)]


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("world", "first"), [(1, 0), (2, 0), (3, 0), (4, 0), (3, 5), (2, 9)])
def test_every_step_holds_exactly_the_windows_pairs(table: PreparedTable, plan: Plan, world: int, first: int) -> None:
    assert plan.steps == EASY_STEPS + HARD_STEPS
    arrived = pairs_of_each_step(table, plan, world, first)
    assert arrived == planned(table, plan, first)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("kind", ["grouped", "packed"])
def test_rows_arrive_as_plain_reading_gives_them(table: PreparedTable, plan: Plan, kind: RowKind) -> None:
    world = World(1, 2)
    streamed = list(RayDataWindows(plain_pairs=0)(table, plan, world, kind, 4, plan.steps))
    read = list(read_windows(table, plan, world, kind, 4, plan.steps))
    assert [rows.to_pylist() for rows in streamed] == [rows.to_pylist() for rows in read]


def test_blocks_of_any_cut_are_cut_again_by_the_counts() -> None:
    numbers = pa.table({"n": np.arange(10)})
    blocks = [numbers.slice(0, 1), numbers.slice(1, 6), numbers.slice(7, 0), numbers.slice(7, 3)]
    assert [piece["n"].to_pylist() for piece in recut(iter(blocks), [3, 2, 5])] == [[0, 1, 2], [3, 4], [5, 6, 7, 8, 9]]


def test_blocks_may_have_other_columns_than_those_before_them() -> None:
    pairs, rows = pa.table({"n": [1, 2], "flipped": [True, False]}), pa.table({"n": [3, 4]})
    assert [piece["n"].to_pylist() for piece in recut(iter([pairs, rows]), [2, 2])] == [[1, 2], [3, 4]]


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("world", "first"), [(1, 0), (3, 2), (2, 9)])
def test_stretches_change_nothing(table: PreparedTable, plan: Plan, world: int, first: int) -> None:
    """Of one read task, three steps, each: they begin inside stages, and the last one is shorter."""
    assert pairs_of_each_step(table, plan, world, first, stretch_pairs=1) == planned(table, plan, first)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("plain_steps", [1, 2, EASY_STEPS + HARD_STEPS - 1])
def test_windows_read_plainly_at_the_beginning_change_nothing(
    table: PreparedTable, plan: Plan, plain_steps: int
) -> None:
    assert pairs_of_each_step(table, plan, 2, 0, plain_pairs=plain_steps * BATCH) == planned(table, plan, 0)


def test_a_short_run_never_starts_ray_data(table: PreparedTable, plan: Plan) -> None:
    class PlainOnly(RayDataWindows):
        def _stretch(self, *_: object) -> Iterator[pa.Table]:
            raise AssertionError("a pipeline began")

    rows = list(PlainOnly(plain_pairs=ROWS)(table, plan, World(0, 1), "grouped", 3, plan.steps))
    assert len(rows) == plan.steps - 3


class WatchedPlan(Plan):
    def window(self, step: int) -> Window:
        self.__dict__.setdefault("asked", []).append(step)
        return super().window(step)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(("stretch_pairs", "stretch"), [(1, {3, 4}), (5 * BATCH, {3, 4, 5, 6})])
def test_a_stream_that_begins_asks_for_the_windows_of_one_stretch(
    table: PreparedTable, plan: Plan, stretch_pairs: int, stretch: set[int]
) -> None:
    """A table of any size starts as fast: nothing before the first step is looked at, and little behind it."""
    watched = WatchedPlan(plan.segments, plan.hard, plan.global_batch)
    rows = RayDataWindows(per_read=2, read_ahead=1, plain_pairs=0, stretch_pairs=stretch_pairs)(
        table, watched, World(0, 2), "grouped", 3, plan.steps
    )
    assert "asked" not in vars(watched)
    next(rows)
    assert set(vars(watched)["asked"]) == stretch
    assert len(list(rows)) == plan.steps - 4
    assert vars(watched)["asked"] == list(range(3, plan.steps))


def numbered(count: int) -> Iterator[pa.Table]:
    for number in range(count):
        yield pa.table({"n": [number]})


@pytest.mark.parametrize("count", [1, 4, 30])
def test_windows_pulled_ahead_are_the_same_windows(count: int) -> None:
    assert [window["n"].to_pylist() for window in ahead(numbered(9), count)] == [[number] for number in range(9)]


def test_an_error_ahead_is_raised_after_the_windows_before_it() -> None:
    def broken() -> Iterator[pa.Table]:
        raise ValueError("damaged")
        yield

    windows = ahead(chain(numbered(2), broken()), 4)
    assert [next(windows)["n"].to_pylist(), next(windows)["n"].to_pylist()] == [[0], [1]]
    with pytest.raises(ValueError, match="damaged"):
        next(windows)


def test_windows_that_nobody_wants_any_more_are_not_pulled() -> None:
    source = iter(list(numbered(100)))
    windows = ahead(source, 3)
    next(windows)
    windows.close()  # type: ignore[attr-defined]
    assert len(list(source)) >= 100 - 5


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_damaged_part_is_told_in_one_line_of_ours(table: PreparedTable, plan: Plan, tmp_path: Path) -> None:
    """As an error of ours it ends the job; as one of Ray's it would be taken for a worker's death, and tried again."""
    folder = tmp_path / "damaged"
    shutil.copytree(table.folder, folder)
    part = folder / "train" / "part-000000000101.parquet"
    part.write_bytes(part.read_bytes()[:-1000])
    streamed = RayDataWindows(plain_pairs=0)
    with pytest.raises(PreparedTableError) as refused:
        list(streamed(PreparedTable.open(str(folder)), plan, World(0, 2), "grouped", 0, plan.steps))
    assert str(refused.value).startswith(f"{part} is missing or damaged (")
    assert str(refused.value).endswith(f"): remove {folder}, and jobs/prepare.py makes it anew")
