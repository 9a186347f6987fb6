"""What a rank holds and waits for before its first window, against the number of pairs. An index, and no tokens.

    python -m tests.measure.scale.opening --pairs 1000000 10000000 100000000

Each size is read by a process of its own. MiB are of that process, beyond what its imports take.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from mixdpo_ray.curriculum.plan import make_plan
from mixdpo_ray.curriculum.routing import hard_positions
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.metrics import window_facts
from mixdpo_ray.training.windows import rank_positions
from mixdpo_ray.training.world import World
from tests.measure.scale.counted import COUNTS, counted
from tests.measure.scale.growth import table
from tests.measure.scale.made_table import write_index_only
from tests.measure.scale.room import load, scratch
from tests.measure.scale.watch import own_mib

BYTES_PER_PAIR = 75


def measure(folder: Path, global_batch: int, world: int) -> dict[str, Any]:
    COUNTS.clear()
    prepared = PreparedTable.open(counted(folder))
    before, pairs = own_mib(), prepared.rows("train")
    clock = time.perf_counter
    began = clock()
    index = prepared.index("train")
    opened, index_mib, index_read = clock(), own_mib() - before, COUNTS.bytes / 2**20
    curriculum = CurriculumSettings()
    plan = make_plan(curriculum, hard_positions(curriculum, index.difficulty, index.pair_id), global_batch, 1)
    planned, plan_mib = clock(), own_mib() - before - index_mib
    middle = plan.window(plan.steps // 2)
    rank_positions(prepared, plan, World(world // 2, world), "grouped", middle.step)
    sought = clock()
    window_facts(middle, plan, index, 1)
    named = clock()
    trained = np.zeros(pairs, np.bool_)
    for step in range(plan.steps):
        trained[plan.window(step).positions] = True
    return {
        "pairs": pairs,
        "index s": opened - began,
        "index MiB": index_mib,
        "read MiB": index_read,
        "plan s": planned - opened,
        "plan MiB": plan_mib,
        "seek s": sought - planned,
        "names s": named - sought,
        "all MiB": own_mib() - before,
        "walk s": clock() - named,
        "steps": plan.steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--global-batch", type=int, default=8192)
    parser.add_argument("--world", type=int, default=512)
    parser.add_argument("--scratch", type=Path, help="where to write; removed at the end")
    parser.add_argument("--keep-gib", type=float, default=25, help="disk that is left free for others")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.global_batch, options.world)))
        return
    print(f"load before: {load()}", file=sys.stderr)
    rows = []
    for pairs in sorted(options.pairs):
        with scratch(options.scratch, pairs * BYTES_PER_PAIR / 2**30, options.keep_gib) as folder:
            write_index_only(folder, pairs)
            command = [sys.executable, "-m", "tests.measure.scale.opening", "--one", str(folder)]
            command += ["--global-batch", str(options.global_batch), "--world", str(options.world)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{pairs} pairs failed")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(table(rows, "pairs"))
    print(f"load after: {load()}")


if __name__ == "__main__":
    main()
