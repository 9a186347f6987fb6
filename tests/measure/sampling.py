"""Whether sampled answers depend on anything but their keys: python -m tests.measure.sampling --out FOLDER.

The same 4 answers to 64 prompts are drawn by one and by two workers, one at a time and 16 together, and once more by a
job that is killed (kill -9) half-way and then repeated by the same command. All tables must be equal, byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from mixdpo_ray.playground.prompts import draw_prompts
from mixdpo_ray.playground.sample import write_tiny_model

ROOT = Path(__file__).parents[2]
PROMPTS, ANSWERS = 64, 4
CASES = [(workers, batch, False) for workers in (1, 2) for batch in (1, 16)] + [(2, 1, True)]
PATIENCE = 300.0  # seconds
RECIPE = """
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/prompts.jsonl}}}}
cluster: {{num_workers: 1, use_gpu: false}}
answers:
  sample:
    prompts: {{source: {{path: {folder}/prompts.jsonl}}}}
    answers_each: {answers}
    decoding: {{max_new_tokens: {tokens}}}
"""


@dataclass(frozen=True)
class Drawn:
    """One way of drawing the answers, and what came of it."""

    workers: int
    batch: int
    killed_at: int | None  # answers that were stored when the first of two processes died
    answers: int
    texts: int  # different ones
    seconds: float
    digest: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model, the prompts and the tables")
    parser.add_argument("--tokens", type=int, default=48, help="longest answer (default: %(default)s)")
    arguments = parser.parse_args()
    write_inputs(arguments.out, arguments.tokens)
    found = []
    for workers, batch, killed in CASES:
        found.append(drawn(arguments.out, workers, batch, killed))
        print(f"{found[-1]}", file=sys.stderr, flush=True)
    for cells in table(found):
        print("".join(f"{cell:>11}" for cell in cells[:-1]), f" {cells[-1]}")
    equal = len({(one.answers, one.digest) for one in found}) == 1
    print(f"{'all tables are equal, byte by byte' if equal else 'THE TABLES DIFFER'}")
    sys.exit(0 if equal and found[0].answers == PROMPTS * ANSWERS else 1)


def write_inputs(folder: Path, tokens: int) -> None:
    write_tiny_model(folder / "model")
    rows = [json.dumps({"prompt": prompt.text}) for prompt in draw_prompts(random.Random(0), PROMPTS)]
    (folder / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder.absolute(), answers=ANSWERS, tokens=tokens))


def drawn(out: Path, workers: int, batch: int, killed: bool) -> Drawn:
    storage = out / f"workers-{workers}-batch-{batch}{'-killed' if killed else ''}"
    command = [
        *(sys.executable, "jobs/sample.py", str(out / "recipe.yaml"), f"output.storage_path={storage.absolute()}"),
        *(f"answers.sample.workers={workers}", f"answers.sample.batch_size={batch}"),
    ]
    began = time.monotonic()
    killed_at = kill_half_way(command, storage) if killed else None
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    files = [*parts(storage), *(storage / "samples").glob("*.jsonl")]
    digest = hashlib.sha256(b"".join(f"{file.name}\n".encode() + file.read_bytes() for file in files)).hexdigest()
    lines = [json.loads(line) for line in (storage / "samples/recipe.jsonl").read_text().splitlines()]
    texts = len({(line["prompt_id"], line["answer"]) for line in lines})
    return Drawn(workers, batch, killed_at, stored(storage), texts, time.monotonic() - began, digest[:16])


def kill_half_way(command: list[str], storage: Path) -> int:
    """Answers that its table has when the job has died of SIGKILL; what its Ray has left ends by itself."""
    environment = {**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "10"}  # a minute by default
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while stored(storage) < PROMPTS * ANSWERS // 2:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the job was not killed in time: status {process.poll()}; raise --tokens")
        time.sleep(0.02)
    process.kill()
    process.wait()
    return stored(storage)


def parts(storage: Path) -> list[Path]:
    return sorted((storage / "samples").glob("*/part-*.parquet"))


def stored(storage: Path) -> int:
    return sum(pq.read_metadata(part).num_rows for part in parts(storage))


def table(found: list[Drawn]) -> list[list[str]]:
    rows = [["workers", "batch", "killed at", "answers", "different", "seconds", "table"]]
    for one in found:
        killed_at = "-" if one.killed_at is None else f"{one.killed_at}"
        numbers = [f"{one.answers}", f"{one.texts}", f"{one.seconds:.1f}", one.digest]
        rows.append([f"{one.workers}", f"{one.batch}", killed_at, *numbers])
    return rows


if __name__ == "__main__":
    main()
