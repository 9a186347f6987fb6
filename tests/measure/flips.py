"""Single bits flipped in every kind of file that training and scoring read: python -m tests.measure.flips [FLIPS].

None may be silent: either the file is refused in one line, or its content is what it was (padding, the first bytes).
Then what it costs: the same table written, opened and read with and without its checksums, in turns.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixdpo_ray import storage
from mixdpo_ray.tables.parquet import ParquetColumns, encoded, write_parquet
from mixdpo_ray.tables.prepared_table import INDEX_SCHEMA, PreparedTable, commit
from tests.measure.damage import flip, kinds, make_table

FLIPS, PAIRS, ROUNDS = 200, 11_000, 41  # as many pairs as a part of real ones has
OUTCOMES = ("refused", "without effect", "silent")


def main() -> None:
    flips = int(sys.argv[1]) if len(sys.argv) > 1 else FLIPS
    draw, bad = np.random.default_rng(0), 0
    print(f"{'kind of file':<34}{'bytes':>8}{'flips':>8}{''.join(f'{name:>16}' for name in OUTCOMES)}  else")
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds(Path(folder)):
            size = kind.path.stat().st_size
            found: Counter[str] = flip(kind, draw.integers(0, size * 8, flips))
            numbers = "".join(f"{found.pop(name, 0):>16}" for name in OUTCOMES[:2])
            silent, others = found.pop("silent", 0), dict(found)
            bad += silent + sum(others.values())
            print(f"{kind.name:<34}{size:>8}{flips:>8}{numbers}{silent:>16}  {others or ''}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        costs(Path(folder))
    sys.exit(1 if bad else 0)


def costs(folder: Path) -> None:
    table = make_table(folder / "sealed", PAIRS, 1.0)
    split = table.manifest.splits["train"].model_copy(update={"seals": (), "index_seal": ""})
    commit(table.folder, plain_manifest := table.manifest.model_copy(update={"splits": {"train": split}}))
    plain = PreparedTable(table.folder, plain_manifest)
    rows = table.read("train", np.arange(PAIRS))
    window = np.arange(5000, 5016)
    spread = np.arange(100, PAIRS, 640)
    path = str(folder / "part.parquet")
    compare("write a part", lambda: write_parquet(path, rows), lambda: storage.write_bytes(path, encoded(rows)))
    for name, positions in (("16 pairs", window), ("17 pairs far apart", spread), ("a whole part", np.arange(PAIRS))):
        compare(f"read {name}", partial(table.read, "train", positions), partial(plain.read, "train", positions))
    compare("open a small index", lambda: _opened(table), lambda: _opened(plain))
    path = str(folder / "index.parquet")
    seal = write_parquet(path, index_of_many())
    compare("open an index of 1 million pairs", lambda: _columns(path, seal), lambda: _columns(path, ""))


def index_of_many(pairs: int = 1_000_000) -> pa.Table:
    draw = np.random.default_rng(0)
    numbers = draw.integers(0, 1 << 60, pairs)
    lengths = {name: draw.integers(10, 900, pairs) for name in INDEX_SCHEMA.names[3:]}
    columns = {"position": np.arange(pairs), "pair_id": [f"{number:032x}" for number in numbers.tolist()]}
    return pa.table(columns | {"margin": np.linspace(9, 0, pairs).round(1)} | lengths, INDEX_SCHEMA)


def compare(name: str, verified: Callable[[], object], unverified: Callable[[], object]) -> None:
    """Medians of turns, so that what else the machine does meets both."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(ROUNDS):
        pair = [("with", verified), ("without", unverified)]
        for which, thing in pair if turn % 2 else reversed(pair):
            began = time.perf_counter()
            thing()
            seconds[which].append(time.perf_counter() - began)
    medians = {which: 1000 * statistics.median(values) for which, values in seconds.items()}
    more = statistics.median(a / b for a, b in zip(seconds["with"], seconds["without"], strict=True)) - 1
    print(f"{name:<34}{medians['with']:>10.2f} ms with checksums{medians['without']:>10.2f} ms without{more:>+9.1%}")


def _opened(table: PreparedTable) -> object:
    return PreparedTable(table.folder, table.manifest).index("train")


def _columns(path: str, seal: str) -> object:
    return ParquetColumns(path, seal, "").arrays(
        {"margin": np.float64, **dict.fromkeys(INDEX_SCHEMA.names[3:], np.int32)}
    )


if __name__ == "__main__":
    main()
