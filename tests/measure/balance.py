"""How evenly windows are shared out over 1 to 64 ranks, by arithmetic on lengths: nothing is trained.

python -m tests.measure.balance [--pairs PAIRS.parquet] [--global-batch 128] [--per-device 2]

Padded rows and packed ones with so many pairs a pass, and packed ones in passes of as many tokens as those have on the
mean. Means over windows of: forward passes of a rank; tokens that are run, with padding and fillers, against the
padded rows of one rank; tokens of the largest pass over those of the mean one; those of the slowest rank over the mean.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from mixdpo_ray.curriculum.shares import Lengths, PassSize, TokenBudget, deal
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.window_shares import tokens_run
from tests.measure.made_rows import made_rows, rows_of
from tests.peer.setup import Row

WORLDS = (1, 2, 4, 8, 16, 32, 64)


def windows_of(rows: Sequence[Row], global_batch: int) -> list[Lengths]:
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    windows = (rows[start : start + global_batch] for start in range(0, len(rows) - global_batch + 1, global_batch))
    return [Lengths(*(np.array([len(row[name]) for row in window]) for name in names)) for window in windows]


def measured(windows: Sequence[Lengths], world: int, size: PassSize, kind: RowKind) -> tuple[float, ...]:
    """Passes, tokens, the largest pass over the mean, the slowest rank over the mean: of a window."""
    found = []
    for lengths in windows:
        easy = np.zeros(len(lengths.prompt), np.bool_)
        shares = deal(lengths, easy, world, size, packed=kind == "packed")
        ranks = np.array([[tokens_run(micro, easy, lengths, kind) for micro in share] for share in shares])
        real = np.array([[micro.weight for micro in share] for share in shares], np.bool_)
        loads = ranks.sum(1)
        found.append((ranks.shape[1], loads.sum(), ranks.max() / ranks[real].mean(), loads.max() / loads.mean()))
    return tuple(np.mean(found, 0).tolist())


def lines(windows: Sequence[Lengths], per_device: int) -> Iterator[str]:
    places = np.mean([(lengths.prompt + lengths.chosen + lengths.rejected).mean() for lengths in windows])
    arms: list[tuple[str, PassSize, RowKind]] = [
        ("padded, pairs", per_device, "grouped"),
        ("packed, pairs", per_device, "packed"),
        ("packed, tokens", TokenBudget(tokens=round(per_device * places)), "packed"),
    ]
    yield f"{'ranks':>5}  {'rows':14} {'passes':>6} {'tokens':>7} {'largest pass':>12} {'slowest rank':>12}"
    padded = measured(windows, 1, per_device, "grouped")[1]
    for world in WORLDS:
        for name, size, kind in arms:
            passes, tokens, largest, slowest = measured(windows, world, size, kind)
            yield f"{world:5}  {name:14} {passes:6.1f} {tokens / padded:7.3f} {largest:12.2f} {slowest:12.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="a parquet file with prompt, chosen and rejected; else lengths are made")
    parser.add_argument("--windows", type=int, default=20)
    parser.add_argument("--global-batch", type=int, default=128)
    parser.add_argument("--per-device", type=int, default=2)
    options = parser.parse_args()
    count = options.windows * options.global_batch
    rows = rows_of(options.pairs, count) if options.pairs else made_rows(count)
    print("\n".join(lines(windows_of(rows, options.global_batch), options.per_device)))


if __name__ == "__main__":
    main()
