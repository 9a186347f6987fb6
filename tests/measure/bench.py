"""Step time and peak memory against TRL's DPOTrainer on equal maths.

Equal on both sides: model, tokens, order, batch, threads, number format, learning rate, no gradient checkpointing.
Losses of each step are compared first; where they differ, no ratio is printed. Arms run in processes of their own,
round by round, so that a noisy moment hits all of them. Time is from the end of one optimizer step to the end of the
next; the first is left out. Tokens are prompt and answer tokens, never padding.

    python -m tests.measure.bench                        made pairs with lengths like UltraFeedback's
    python -m tests.measure.bench --pairs PAIRS.parquet  prompt, chosen and rejected of any file, a token for four bytes
    python -m tests.measure.bench --lengths 700 150 150  of every prompt, chosen and rejected answer
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.training.world import World
from tests.measure.arms import PADDED, SHARED, micro_batches
from tests.measure.made_rows import VOCABULARY, save_tokenizer, tokens_of
from tests.measure.packing import SHAPE, small_llama, work_of
from tests.measure.step_options import chosen_rows, step_parser
from tests.measure.timed import timed_training
from tests.peer.ours import make_job, write_inputs
from tests.peer.peer import run_dpo
from tests.peer.setup import Row, Setup

BETA, TOLERANCE = 0.1, 1e-4
ARMS = {
    "packed": "mixdpo_ray",
    "padded": "mixdpo_ray, packing off",
    "trl": "TRL, reference in the loop",
    "trl-precomputed": "TRL, reference precomputed",
}
OURS = ("packed", "padded")


def write_model(folder: Path) -> None:
    small_llama().save_pretrained(folder)
    save_tokenizer(folder, VOCABULARY)


def run_arm(arm: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    rows = json.loads((work / "rows.json").read_text())
    setup = Setup(work / "model", rows, 1e-4, options.global_batch, options.per_device, options.steps, BETA)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = _ours(setup, work, arm) if arm in OURS else _theirs(setup, work, arm)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "peak_mib": peak / 1024, "grown_mib": (peak - before) / 1024}


def _ours(setup: Setup, work: Path, arm: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=work) as folder:
        inputs = Path(folder)
        for name in ("table", "reference"):
            (inputs / name).symlink_to(work / name)
        job = make_job(setup, inputs, DPO(beta=BETA))
        packing = {"packing": arm == "packed"}
        return timed_training(replace(job, model=job.model.model_copy(update=packing)), World())


def _theirs(setup: Setup, work: Path, arm: str) -> dict[str, Any]:
    record = run_dpo(setup, work / "trl", precompute=arm == "trl-precomputed")
    return {"losses": record.losses, "seconds": np.diff(record.ends).tolist()}


def measure(work: Path, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Every arm once in every round."""
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        for arm in ARMS:
            print(f"round {number + 1}/{options.rounds}: {ARMS[arm]}", file=sys.stderr, flush=True)
            command = [sys.executable, "-W", "ignore", "-m", "tests.measure.bench", "--arm", arm, "--work", str(work)]
            command += [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in
                        ("steps", "threads", "global-batch", "per-device")]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{ARMS[arm]} failed:\n{done.stderr[-2000:]}")
            results[arm].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def report(results: dict[str, list[dict[str, Any]]], rows: list[Row], options: argparse.Namespace) -> None:
    ours = results["packed"][0]["losses"]
    for arm in list(ARMS)[1:]:
        gap = max(abs(a - b) for a, b in zip(ours, results[arm][0]["losses"], strict=True))
        if gap > TOLERANCE:
            sys.exit(f"losses differ from {ARMS[arm]} by {gap:.2g}: the maths is not equal, so there is no ratio")
        print(f"largest difference in loss over {len(ours)} steps from {ARMS[arm]}: {gap:.1e}")
    per_step = sum(map(tokens_of, rows)) / options.steps
    print(f"{'':30} {'s/step (median, range)':>26} {'tokens/s':>9} {'peak MiB':>9} {'ours is':>9}")
    base = _median(results["packed"])
    for arm, name in ARMS.items():
        seconds = [value for result in results[arm] for value in result["seconds"]]
        spread = f"{_median(results[arm]):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        peak = statistics.median(result["peak_mib"] for result in results[arm])
        ratio = "" if arm == "packed" else f"{_median(results[arm]) / base:.2f}x"
        print(f"{name:30} {spread:>26} {per_step / _median(results[arm]):9.0f} {peak:9.0f} {ratio:>9}")
    outside = statistics.median(result["outside"] for result in results["packed"])
    print(f"outside forward, backward and optimizer: {outside:.1%} of our step")
    gain, ceiling = (
        _median(results["padded"]) / base,
        _operations(PADDED, rows, options) / _operations(SHARED, rows, options),
    )
    print(
        f"packing: {gain:.2f}x of the {ceiling:.2f}x that its operations would give, {gain / ceiling:.2f} of it; "
        f"padding without it {results['padded'][0]['padding']:.1%}"
    )


def _operations(arm: str, rows: list[Row], options: argparse.Namespace) -> int:
    """Of all steps, padding included."""
    steps = [rows[first : first + options.global_batch] for first in range(0, len(rows), options.global_batch)]
    return sum(work_of(micro_batches(arm, step, options.per_device)).flops(SHAPE) for step in steps)


def _median(results: list[dict[str, Any]]) -> float:
    medians: list[float] = [statistics.median(result["seconds"]) for result in results]
    return statistics.median(medians)


def main() -> None:
    parser = step_parser(__doc__, rounds=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run_arm(options.arm, options.work, options)))
        return
    rows = chosen_rows(options, options.steps * options.global_batch)
    with tempfile.TemporaryDirectory(prefix="mixdpo-bench-") as folder:
        work = Path(folder)
        write_model(work / "model")
        (work / "rows.json").write_text(json.dumps(rows))
        write_inputs(work, work / "model", rows)
        report(measure(work, options), rows, options)


if __name__ == "__main__":
    main()
