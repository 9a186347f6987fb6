"""Measure this code on one GPU in five minutes, on a machine that has no network.

    python -m tests.measure.gpu --device cuda --out FOLDER          there
    python -m tests.measure.gpu --device cpu --tiny --out FOLDER    anywhere: the whole script, in a minute

What such a machine lacks travels in a bundle, a folder that git ignores. Once, where there is a network:

    python -m tests.measure.make_bundle

and there, in the checkout with its .gpu-bundle/:

    python3 tests/measure/install_bundle.py SITE && export PYTHONPATH=SITE:$PWD

Every phase has a process and a deadline of its own (phases.py). They stand in the order in which one would rather do
without the last ones. FOLDER gets results.jsonl, table.txt, profile-<arm>.txt and log.txt; the table is also the last
thing on the screen. Nothing about the card is changed.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from mixdpo_ray.training.engine import import_what_is_slow
from mixdpo_ray.training.quiet import quiet
from mixdpo_ray.training.settings import LoraSettings
from tests.measure import against_trl, ceilings, correctness, inputs, micro_steps, resume, trainings
from tests.measure.phases import Measurement, Phase, Report, Result, run_phases
from tests.measure.sizes import FULL, TINY
from tests.measure.table import show

SECONDS = {"cuda": 300.0, "cpu": 1500.0}
PATIENCE = {"cuda": 1, "cpu": 5}  # times a phase's seconds; a CPU may be shared, and DeepSpeed compiles for it once
PLAIN, BEST = "zero 2", "packing liger"
# Left by whoever started several processes from this shell: TRL would wait for the others
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
ENGINE, TRL, RAY = ("deepspeed",), ("tests.peer.peer",), ("tests.measure.through_ray",)


def all_phases() -> list[Phase]:
    """Each with about twice the seconds that it should take; all of them share --seconds."""
    given = ("inputs",)

    def training(name: str, **settings: Any) -> Phase:
        return Phase(name, partial(trainings.run, what=name, **settings), 40, given, ENGINE)

    def micro_step(name: str) -> Phase:
        return Phase(name, partial(micro_steps.run, arm=micro_steps.BY_NAME[name]), 60, given, ENGINE)

    return [
        Phase("ceilings", ceilings.run, 30),
        Phase("inputs", inputs.run, 60),
        Phase("correctness", correctness.run, 60, given, decides=True),
        micro_step("liger one chunk"),
        Phase(against_trl.OURS, against_trl.run_ours, 40, given, ENGINE),
        Phase(against_trl.LARGER_ROWS, partial(against_trl.run_ours, rows=8), 40, given, ENGINE),
        Phase(against_trl.PRECOMPUTED, partial(against_trl.run_theirs, precompute=True), 60, given, TRL),
        Phase(against_trl.LOOP, partial(against_trl.run_theirs, precompute=False), 60, given, TRL),
        training(BEST, model=against_trl.BEST, deepspeed={"zero_stage": trainings.ZERO}),
        Phase("ray", partial(_through_ray, beside=BEST), 60, given, RAY),
        Phase("larger", micro_steps.run_larger, 60, given, ENGINE),
        Phase("resume", resume.run, 90, given, ENGINE),
        *map(micro_step, ("liger", "shared", "packed", "plain log-probs", "padded")),
        training(PLAIN, deepspeed={"zero_stage": trainings.ZERO}),
        training("packing", model={"packing": True}),
        training("zero 3", deepspeed={"zero_stage": 3}),
        training("zero 1", deepspeed={"zero_stage": 1}),
        training("checkpointing", train={"gradient_checkpointing": True}),
        training("lora", model={"lora": LoraSettings()}),
    ]


def _through_ray(measurement: Measurement, report: Report, beside: str) -> None:
    """Ray is imported in no other phase: the others should run where it cannot."""
    from tests.measure import through_ray

    through_ray.run(measurement, report, beside)


def measure(device: str, out: Path, phases: Sequence[Phase], *, tiny: bool, seconds: float) -> list[Result]:
    out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    phases = [replace(phase, seconds=PATIENCE[device] * phase.seconds) for phase in phases]
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
        import_what_is_slow()
        with quiet():
            for name in {name for phase in phases for name in phase.imports} - set(RAY):
                importlib.import_module(name)  # once, for all the processes that are forked from this one
        gc.freeze()  # they look through their own objects alone
    for name in LAUNCHER:  # DeepSpeed, imported above, sets one of them
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="mixdpo-measure-") as work:
        which = "cpu" if device == "cpu" else "cuda:0"
        measurement = Measurement(which, TINY if tiny else FULL, Path(work), out)
        results = run_phases(phases, measurement, seconds)
    cards = [result["card"] for result in results if "card" in result]
    tried = "; tiny: these numbers say that the script works, and no more" if tiny else ""
    title = f"{cards[0] if cards else device}, {time.monotonic() - began:.0f} s{tried}"
    show(results, title, out / "table.txt")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=SECONDS, required=True)
    parser.add_argument("--tiny", action="store_true", help="small models and few pairs, to try the script itself")
    parser.add_argument("--out", type=Path, required=True)
    names = [phase.name for phase in all_phases()]
    parser.add_argument("--phases", help=f"only these and what they need: {','.join(names)}")
    parser.add_argument("--seconds", type=float, help="of all phases together; by default 300 on a GPU, 1500 without")
    options = parser.parse_args()
    if options.device == "cpu" and not options.tiny:
        sys.exit("--device cpu tells nothing about a GPU, and would take hours: add --tiny, which tries the script")
    if options.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch finds no GPU here")
    wanted = options.phases.split(",") if options.phases else names
    if unknown := set(wanted) - set(names):
        sys.exit(f"--phases: no {sorted(unknown)[0]!r}; there are {', '.join(names)}")
    needed = {name for phase in all_phases() if phase.name in wanted for name in phase.needs}
    chosen = [phase for phase in all_phases() if phase.name in {*wanted, *needed}]
    seconds = options.seconds or SECONDS[options.device]
    measure(options.device, options.out.absolute(), chosen, tiny=options.tiny, seconds=seconds)


if __name__ == "__main__":
    main()
