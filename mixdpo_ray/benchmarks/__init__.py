"""Benchmarks by name. To add one: a class in a file of its own (see benchmark.py), and its key here."""

from mixdpo_ray.benchmarks.alpaca_eval_2 import AlpacaEval2
from mixdpo_ray.benchmarks.arena_hard_v0_1 import ArenaHardV01
from mixdpo_ray.benchmarks.arena_hard_v2 import ArenaHardV2
from mixdpo_ray.benchmarks.benchmark import Benchmark
from mixdpo_ray.benchmarks.mt_bench import MTBench
from mixdpo_ray.benchmarks.own import Own

BENCHMARKS: dict[str, type[Benchmark]] = {
    "alpaca_eval_2": AlpacaEval2,
    "arena_hard_v0_1": ArenaHardV01,
    "arena_hard_v2": ArenaHardV2,
    "mt_bench": MTBench,
    "own": Own,
}
