"""What ranks of worlds of any size read, and how long they wait for it, each through the real reading code.

    python -m tests.measure.scale.stream --worlds 8 64 512 1000

A table of synthetic rows is written once. For each world a few ranks read a few windows in this process, as a read task
does, every byte and request counted at the file system. `times` is how often all ranks together read the table in one
epoch; `shares` and `counts` are what each rank computes for a window. With --ray one rank of each world reads through
Ray Data as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.cluster.stream import RayDataWindows
from mixdpo_ray.cluster.stream import _read as read_task
from mixdpo_ray.curriculum.plan import Plan, make_plan
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.window_shares import share_window
from mixdpo_ray.training.windows import rank_positions, read_windows
from mixdpo_ray.training.world import World
from tests.measure.scale.counted import COUNTS, counted
from tests.measure.scale.growth import table
from tests.measure.scale.made_table import write_table
from tests.measure.scale.room import load, scratch
from tests.measure.scale.watch import folder_mib

BYTES_PER_PAIR = 3_700
PER_DEVICE, CHUNK_TOKENS = 2, 4096


def plan_of(prepared: PreparedTable, global_batch: int) -> Plan:
    hard = prepared.index("train").margin < 1
    return make_plan(CurriculumSettings(), hard, global_batch, 1)


def measure(folder: Path, world: int, options: argparse.Namespace) -> dict[str, Any]:
    pairs_per_rank = options.pairs_per_rank
    global_batch = world * pairs_per_rank
    address = counted(folder)
    first: list[float] = []
    middle: list[float] = []
    tasks: list[float] = []
    shares: list[float] = []
    counts: list[float] = []
    read = requests = steps = 0
    for rank in np.unique(np.linspace(0, world - 1, options.ranks).astype(int)).tolist():
        place = World(rank, world)
        for start, waits in ((0.0, first), (0.5, middle)):
            began = time.perf_counter()
            prepared = PreparedTable.open(address)
            plan = plan_of(prepared, global_batch)
            begin = int(start * plan.steps)
            rows = read_windows(prepared, plan, place, "grouped", begin, plan.steps)
            next(rows)
            waits.append(time.perf_counter() - began)
            following = range(begin, min(begin + options.steps, plan.steps))
            began = time.process_time()
            positions = [rank_positions(prepared, plan, place, "grouped", step) for step in following]
            shares.append((time.process_time() - began) / len(following))
            COUNTS.clear()
            began = time.process_time()
            steps += sum(1 for _ in read_task(address, positions))
            tasks.append((time.process_time() - began) / len(following))
            read, requests = read + COUNTS.bytes, requests + COUNTS.reads
            began = time.process_time()
            share_window(plan.window(begin), prepared.index("train"), world, PER_DEVICE, CHUNK_TOKENS)
            counts.append(time.process_time() - began)
    share = folder_mib(folder) * 2**20 * pairs_per_rank / prepared.rows("train")  # of one rank in one step
    return {
        "ranks": world,
        "global batch": global_batch,
        "KiB a rank and step": read / steps / 2**10,
        "requests": requests / steps,
        "times": read / steps / share,
        "all ranks MiB a step": world * read / steps / 2**20,
        "first window s": float(np.median(first)),
        "seek to the middle s": float(np.median(middle)),
        "read, ms of CPU": 1e3 * float(np.median(tasks)),
        "shares": 1e3 * float(np.median(shares)),
        "counts": 1e3 * float(np.median(counts)),
    }


def measure_ray(folder: Path, world: int, options: argparse.Namespace) -> dict[str, Any]:
    prepared = PreparedTable.open(str(folder))
    plan = plan_of(prepared, world * options.pairs_per_rank)
    row: dict[str, Any] = {"ranks": world, "steps": plan.steps}
    for name, start in (("first window s", 0), ("seek to the middle s", plan.steps // 2)):
        began = time.perf_counter()
        rows = RayDataWindows(plain_pairs=0)(prepared, plan, World(world // 2, world), "grouped", start, plan.steps)
        next(rows)
        row[name] = time.perf_counter() - began
        began, count = time.perf_counter(), sum(1 for _ in islice(rows, options.steps))
        row[f"then s a window{'' if start else ' '}"] = (time.perf_counter() - began) / max(1, count)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument(
        "--pairs-per-rank", type=int, default=16, help="in a step: the global batch grows with the world"
    )
    parser.add_argument("--ranks", type=int, default=3, help="that are tried of each world")
    parser.add_argument("--steps", type=int, default=10, help="that each of them reads in one task")
    parser.add_argument("--ray", action="store_true", help="read through Ray Data too")
    parser.add_argument("--scratch", type=Path, help="where to write; removed at the end")
    parser.add_argument("--keep-gib", type=float, default=25, help="disk that is left free for others")
    options = parser.parse_args()
    print(f"load before: {load()}")
    with scratch(options.scratch, options.pairs * BYTES_PER_PAIR / 2**30, options.keep_gib) as folder:
        write_table(folder, options.pairs)
        print(f"{options.pairs:,} pairs, {folder_mib(folder):,.0f} MiB", flush=True)
        print(table([measure(folder, world, options) for world in options.worlds], "ranks"), flush=True)
        if options.ray:
            with connected(ClusterSettings(use_gpu=False)):
                quiet_ray_data()
                print(table([measure_ray(folder, world, options) for world in options.worlds], "ranks"))
    print(f"load after: {load()}", file=sys.stderr)


if __name__ == "__main__":
    main()
