"""Time, memory and disk of preparing a table, against the number of pairs.

    python -m tests.measure.scale.prepare --pairs 100000 300000 1000000

Rows are synthetic from tokenising on: what is measured is staging, keys, order, Ray Data's sort, parts and index. Every
size runs in a process and a Ray of its own. Memory is the peak of half-second looks: `all` is this process, Ray's
processes and the object store together, `driver` this process without what it maps of the object store.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray

from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.pairs.settings import HeldoutSettings
from mixdpo_ray.pairs.split_and_order import arrange
from mixdpo_ray.preparation import prepare as preparation
from mixdpo_ray.preparation.convert_sources import SIZES, convert_sources
from mixdpo_ray.preparation.refused_rows import refused_rows
from mixdpo_ray.tables.prepared_table import commit
from tests.measure.scale.growth import table
from tests.measure.scale.made_source import made
from tests.measure.scale.room import load, scratch
from tests.measure.scale.watch import Watch, folder_mib

BYTES_PER_PAIR = 3_700  # on disk at full length
COPIES = 3.5  # the table, and what Ray spills of the staged and of the moved rows


def measure(pairs: int, fraction: float, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    # Ray's sockets need short paths: its folder cannot be the scratch folder
    with tempfile.TemporaryDirectory(prefix="mixdpo-ray-", dir="/tmp") as ray_folder:
        ray.init(
            num_cpus=options.cpus, object_store_memory=options.store_mib << 20, include_dashboard=False,
            log_to_driver=False, logging_level="ERROR", _temp_dir=ray_folder,
            object_spilling_directory=str(folder / "spilled"),
        )  # fmt: skip
        try:
            return _measured(pairs, fraction, folder)
        finally:
            ray.shutdown()


def _measured(pairs: int, fraction: float, folder: Path) -> dict[str, Any]:
    quiet_ray_data()
    place = str(folder / "table")
    source, stage = made(pairs, fraction)
    with Watch(folder) as watch:
        staged = convert_sources({"data.source": source}, [stage], SIZES, lambda done, of: None)
        read, after_staging = watch.seconds, watch.own_mib
        arranged = arrange(staged.keys, HeldoutSettings(), CurriculumSettings(), False)
        ordered, after_arranging = watch.seconds, watch.own_mib
        quarantine = refused_rows(staged, arranged)
        manifest = preparation._write(place, staged, arranged, quarantine, SIZES, lambda done, of: None)
        commit(place, manifest)
        written = watch.seconds
    return {
        "pairs": pairs,
        "stage s": read,
        "arrange s": ordered - read,
        "sort, write s": written - ordered,
        "all s": written,
        "CPU s": watch.cpu_seconds,
        "all MiB": watch.all_mib,
        "driver MiB, staged": after_staging,
        "arranged": after_arranging,
        "at most": watch.own_mib,
        "disk MiB": watch.disk_mib,
        "table MiB": folder_mib(folder / "table"),
        "parts": len(manifest.splits["train"].first_positions),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=[30_000, 100_000, 300_000])
    parser.add_argument("--fraction", type=float, default=1.0, help="of UltraFeedback's lengths")
    parser.add_argument("--cpus", type=int, default=2, help="of Ray")
    parser.add_argument("--store-mib", type=int, default=2048, help="object store; what it cannot hold is spilled")
    parser.add_argument("--scratch", type=Path, help="where to write; removed at the end")
    parser.add_argument("--keep-gib", type=float, default=25, help="disk that is left free for others")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.pairs[0], options.fraction, options.scratch, options)))
        return
    print(f"load before: {load()}", file=sys.stderr)
    rows = []
    for pairs in sorted(options.pairs):
        needed = pairs * BYTES_PER_PAIR * options.fraction * COPIES / 2**30
        with scratch(options.scratch, needed, options.keep_gib) as folder:
            command = [sys.executable, "-m", "tests.measure.scale.prepare", "--one", "--pairs", str(pairs)]
            command += ["--fraction", str(options.fraction), "--cpus", str(options.cpus)]
            command += ["--store-mib", str(options.store_mib), "--scratch", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(f"{pairs} pairs failed")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(table(rows, "pairs"), file=sys.stderr, flush=True)
    print(table(rows, "pairs"))
    print(f"load after: {load()}")


if __name__ == "__main__":
    main()
