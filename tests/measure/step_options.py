"""What programs that time steps are asked for: the pairs, how many of them in a step, and how often all is repeated."""

from __future__ import annotations

import argparse

import numpy as np

from tests.measure.made_rows import VOCABULARY, made_rows, rows_of
from tests.peer.setup import Row


def step_parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="a parquet file with prompt, chosen and rejected")
    parser.add_argument("--lengths", type=int, nargs=3, help="of every prompt, chosen and rejected answer")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--per-device", type=int, default=4)
    return parser


def chosen_rows(options: argparse.Namespace, count: int) -> list[Row]:
    """Of a file, all of the same lengths, or of many."""
    if options.pairs:
        return rows_of(options.pairs, count)
    if not options.lengths:
        return made_rows(count)
    draw, names = np.random.default_rng(0), ("prompt_ids", "chosen_ids", "rejected_ids")
    return [
        {
            name: draw.integers(3, VOCABULARY, length).tolist()
            for name, length in zip(names, options.lengths, strict=True)
        }
        for _ in range(count)
    ]
