"""Step time and peak memory against TRL's DPOTrainer on equal maths.

Equal on both sides: model, tokens, order, batch, threads, number format, learning rate, no gradient checkpointing.
Losses of each step are compared first; where they differ, no ratio is printed. Arms run in processes of their own,
round by round, so that a noisy moment hits all of them. Time is from the end of one optimizer step to the end of the
next; the first is left out. Tokens are prompt and answer tokens, never padding.

    python -m tests.peer.bench                        made pairs with lengths like UltraFeedback's
    python -m tests.peer.bench --pairs PAIRS.parquet  prompt, chosen and rejected of any file, a token for four bytes
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.training import loop as loop_module
from mixdpo_ray.training import step as step_module
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.world import World
from tests.peer.ours import make_job, write_inputs
from tests.peer.peer import Row, Setup, run_dpo

VOCABULARY, LONGEST, LONGEST_PROMPT, BETA, TOLERANCE = 8192, 1024, 512, 0.1, 1e-4
ARMS = {
    "ours": "mixdpo_ray",
    "trl": "TRL, reference in the loop",
    "trl-precomputed": "TRL, reference precomputed",
}


def made_rows(count: int) -> list[Row]:
    """Lognormal lengths with medians of 90 tokens for prompts and 210 for answers, cut at 1,024."""
    draw = np.random.default_rng(0)

    def length(median: float, spread: float, most: int) -> int:
        return int(np.clip(draw.lognormal(np.log(median), spread), 4, most))

    rows = []
    for _ in range(count):
        prompt = length(90, 0.9, LONGEST_PROMPT)
        answers = [length(210, 0.8, LONGEST - prompt) for _ in range(2)]
        ids = [draw.integers(3, VOCABULARY, size).tolist() for size in (prompt, *answers)]
        rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True)))
    return rows


def rows_of(path: str, count: int) -> list[Row]:
    """One token for about four bytes, as in English; which token does not matter for time."""
    columns = pq.read_table(path, columns=["prompt", "chosen", "rejected"]).slice(0, 20 * count).to_pylist()
    random.Random(0).shuffle(columns)

    def ids(text: Any, most: int) -> list[int]:
        last = text[-1]["content"] if isinstance(text, list) else text
        content = last.encode()
        return [3 + content[place] * 31 % (VOCABULARY - 3) for place in range(0, len(content), 4)][:most] or [3]

    rows = []
    for row in columns[:count]:
        prompt = ids(row["prompt"], LONGEST_PROMPT)
        answers = (ids(row[name], LONGEST - len(prompt)) for name in ("chosen", "rejected"))
        rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), (prompt, *answers), strict=True)))
    return rows


def write_model(folder: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=LONGEST, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", bos_token="w1", eos_token="w2").save_pretrained(
        folder
    )


class Stamps(Silent):
    """When each of our steps ended, and its loss."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.ends: list[float] = []
        self.padding: list[float] = []

    def on_step(self, metrics: dict[str, Any]) -> None:
        self.losses.append(metrics["loss"])
        self.ends.append(time.perf_counter())
        self.padding.append(metrics["perf/padding_fraction"])


class Spent:
    """Seconds inside functions that are wrapped with it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = function(*arguments, **named)
            self.seconds += time.perf_counter() - began
            return result

        return timed


def run_arm(arm: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    rows = json.loads((work / "rows.json").read_text())
    setup = Setup(work / "model", rows, 1e-4, options.global_batch, options.per_device, options.steps, BETA)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = _ours(setup, work) if arm == "ours" else _theirs(setup, work, arm)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "peak_mib": peak / 1024, "grown_mib": (peak - before) / 1024}


def _ours(setup: Setup, work: Path) -> dict[str, Any]:
    stamps, spent = Stamps(), Spent()
    for name in ("pair_logps", "update"):  # forward, and the optimizer; backward is the engine's, below
        vars(step_module)[name] = spent.wrap(vars(step_module)[name])
    timed_step, inside = step_module.train_step, []

    def train_step(policy: Any, *arguments: Any) -> Any:
        if "backward" not in vars(policy.engine):
            policy.engine.backward = spent.wrap(policy.engine.backward)
        before = spent.seconds
        result = timed_step(policy, *arguments)
        inside.append(spent.seconds - before)
        return result

    vars(loop_module)["train_step"] = train_step
    with tempfile.TemporaryDirectory(dir=work) as folder:
        inputs = Path(folder)
        for name in ("table", "reference"):
            (inputs / name).symlink_to(work / name)
        run_training(make_job(setup, inputs, DPO(beta=BETA)), World(), listener=stamps)
    seconds = np.diff(stamps.ends)
    outside = 1 - sum(inside[1:]) / seconds.sum()
    padding = statistics.mean(stamps.padding)
    return {"losses": stamps.losses, "seconds": seconds.tolist(), "outside": outside, "padding": padding}


def _theirs(setup: Setup, work: Path, arm: str) -> dict[str, Any]:
    record = run_dpo(setup, work / "trl", precompute=arm == "trl-precomputed")
    return {"losses": record.losses, "seconds": np.diff(record.ends).tolist()}


def measure(work: Path, options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Every arm once in every round."""
    results: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds):
        for arm in ARMS:
            print(f"round {number + 1}/{options.rounds}: {ARMS[arm]}", file=sys.stderr, flush=True)
            command = [sys.executable, "-W", "ignore", "-m", "tests.peer.bench", "--arm", arm, "--work", str(work)]
            command += [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in
                        ("steps", "threads", "global-batch", "per-device")]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{ARMS[arm]} failed:\n{done.stderr[-2000:]}")
            results[arm].append(json.loads(done.stdout.splitlines()[-1]))
    return results


def report(results: dict[str, list[dict[str, Any]]], rows: list[Row], options: argparse.Namespace) -> None:
    ours = results["ours"][0]["losses"]
    for arm in ("trl", "trl-precomputed"):
        gap = max(abs(a - b) for a, b in zip(ours, results[arm][0]["losses"], strict=True))
        if gap > TOLERANCE:
            sys.exit(f"losses differ from {ARMS[arm]} by {gap:.2g}: the maths is not equal, so there is no ratio")
        print(f"largest difference in loss over {len(ours)} steps from {ARMS[arm]}: {gap:.1e}")
    tokens = sum(2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    per_step = tokens / options.steps
    print(f"{'':30} {'s/step (median, range)':>26} {'tokens/s':>9} {'peak MiB':>9} {'ours is':>9}")
    base = _median(results["ours"])
    for arm, name in ARMS.items():
        seconds = [value for result in results[arm] for value in result["seconds"]]
        spread = f"{_median(results[arm]):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        peak = statistics.median(result["peak_mib"] for result in results[arm])
        ratio = "" if arm == "ours" else f"{_median(results[arm]) / base:.2f}x"
        print(f"{name:30} {spread:>26} {per_step / _median(results[arm]):9.0f} {peak:9.0f} {ratio:>9}")
    outside = statistics.median(result["outside"] for result in results["ours"])
    padding = results["ours"][0]["padding"]
    print(f"outside forward, backward and optimizer: {outside:.1%} of our step; padding {padding:.1%}")


def _median(results: list[dict[str, Any]]) -> float:
    medians: list[float] = [statistics.median(result["seconds"]) for result in results]
    return statistics.median(medians)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", help="a parquet file with prompt, chosen and rejected")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--per-device", type=int, default=4)
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run_arm(options.arm, options.work, options)))
        return
    count = options.steps * options.global_batch
    rows = rows_of(options.pairs, count) if options.pairs else made_rows(count)
    with tempfile.TemporaryDirectory(prefix="mixdpo-bench-") as folder:
        work = Path(folder)
        write_model(work / "model")
        (work / "rows.json").write_text(json.dumps(rows))
        write_inputs(work, work / "model", rows)
        report(measure(work, options), rows, options)


if __name__ == "__main__":
    main()
