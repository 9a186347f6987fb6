"""The curriculum is exact for any number of workers, and after a resume with another number of them."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from mixdpo_ray.cluster.settings import ClusterSettings
from mixdpo_ray.cluster.stream import RayDataWindows, recut
from mixdpo_ray.curriculum.plan import Plan, make_plan
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.pairs.table import Manifest, PreparedTable, SplitFacts, commit, index_rows, write_index, write_part
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


def pairs_of_each_step(table: PreparedTable, plan: Plan, world: int, first: int) -> list[list[str]]:
    """What all ranks together were given, step by step."""
    source = RayDataWindows(ClusterSettings(windows_per_read=3))
    streams = [source(table, plan, World(rank, world), 2, first, plan.steps) for rank in range(world)]
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
def test_rows_arrive_as_plain_reading_gives_them(table: PreparedTable, plan: Plan) -> None:
    world = World(1, 2)
    streamed = list(RayDataWindows(ClusterSettings())(table, plan, world, 2, 4, plan.steps))
    read = list(read_windows(table, plan, world, 2, 4, plan.steps))
    assert [rows.to_pylist() for rows in streamed] == [rows.to_pylist() for rows in read]


def test_blocks_of_any_cut_are_cut_again_by_the_counts() -> None:
    numbers = pa.table({"n": np.arange(10)})
    blocks = [numbers.slice(0, 1), numbers.slice(1, 6), numbers.slice(7, 0), numbers.slice(7, 3)]
    assert [piece["n"].to_pylist() for piece in recut(iter(blocks), [3, 2, 5])] == [[0, 1, 2], [3, 4], [5, 6, 7, 8, 9]]
