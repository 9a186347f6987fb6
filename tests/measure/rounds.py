"""Three rounds on a model's own answers against one long one: python -m tests.measure.rounds --seeds 5 --out FOLDER.

Each seed is a playground: another base model, other prompts. The arms draw the same number of answers to the same
prompts, which are rated by their true quality, and train the same number of steps, but for prompts that give no pair.
What is measured is the mean true quality of answers to prompts that no arm has had. The same command continues.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mixdpo_ray.comparison.table import shown
from mixdpo_ray.intervals import Estimate
from mixdpo_ray.iteration.iterate import iterate
from mixdpo_ray.iteration.output import IterateOutput
from mixdpo_ray.iteration.results import best_round
from mixdpo_ray.playground.build import PlaygroundFolder, draw_all_prompts
from mixdpo_ray.playground.model_quality import model_quality
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.recipe.file import load_recipe

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground-iterate.yaml"
BASE, LONG = "base model", "one long round"
ROUNDS = {"held to the first": "first", "held to the last": "last"}  # the reference of each arm that has rounds
UNUSED = 2  # prompts that the playground makes pairs of, which it must
JUDGED = 500  # by each round, as the recipe says
Qualities = dict[str, float]  # by what was measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="folder of all that is made")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=1000, help="of each round (default: %(default)s)")
    parser.add_argument("--judged", type=int, default=1000, help="prompts of the true quality (default: %(default)s)")
    parser.add_argument("--base-steps", type=int, default=600, help="of the base model (default: %(default)s)")
    parser.add_argument("overrides", nargs="*", help="of playground-iterate.yaml, as dotted.key=value")
    arguments = parser.parse_args()
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import torch

    torch.set_num_threads(1)
    measured = {seed: measure_seed(arguments, seed) for seed in range(arguments.seeds)}
    text = summary(measured, arguments.rounds)
    (arguments.out / "rounds.md").write_text(text)
    sys.stdout.write(text)


def measure_seed(arguments: argparse.Namespace, seed: int) -> Qualities:
    """What is measured already is read."""
    folder = arguments.out / f"seed-{seed}"
    playground = made_playground(folder / "world", arguments, seed)
    file = folder / "qualities.json"
    known: Qualities = json.loads(file.read_text()) if file.exists() else {}

    def measure(name: str, model: str | Path) -> None:
        if name not in known:
            found = model_quality(playground, Path(model), answers_each=2)
            known[name] = found["quality"]
            file.write_text(json.dumps(known, indent=1))

    measure(BASE, playground.base)
    for arm, reference in ROUNDS.items():
        done = run_arm(folder, arguments, arguments.rounds, arguments.prompts, reference)
        known[f"{arm}, rounds done"] = len(done.rounds)
        for one in done.rounds:
            measure(round_name(arm, one.number), one.model)
        best = best_round(done.rounds)
        known[best_name(arm)] = known[round_name(arm, best) if best else BASE]
        known[f"{arm}, steps"] = sum(one.steps for one in done.rounds)
    (long,) = run_arm(folder, arguments, 1, arguments.rounds * arguments.prompts, "first").rounds
    measure(LONG, long.model)
    known[f"{LONG}, steps"] = long.steps
    file.write_text(json.dumps(known, indent=1))
    return known


def made_playground(path: Path, arguments: argparse.Namespace, seed: int) -> PlaygroundFolder:
    """Its own pairs are not used."""
    settings = PlaygroundSettings(seed=seed, base_steps=arguments.base_steps, prompts=UNUSED, judged=arguments.judged)
    playground = PlaygroundFolder(path, settings)
    if not playground.exists:
        playground.make()
    return playground


def run_arm(
    folder: Path, arguments: argparse.Namespace, rounds: int, prompts_each: int, reference: str
) -> IterateOutput:
    settings = {
        "model.path": folder / "world" / "base",
        "answers.sample.prompts.source.path": prompts_file(folder, arguments),
        "answers.iterate.rounds": rounds,
        "answers.iterate.prompts_each": prompts_each,
        "answers.iterate.reference": reference,
        "output.storage_path": folder,
        "output.name": f"{rounds}-rounds-{reference}",
    }
    own = [f"{name}={value}" for name, value in settings.items()]
    return iterate(load_recipe(str(RECIPE), [*own, *arguments.overrides]))


def prompts_file(folder: Path, arguments: argparse.Namespace) -> Path:
    """Prompts that are none of those of the true quality, which are the first of the seed's."""
    file = folder / "prompts.jsonl"
    if not file.exists():
        asked, taken = arguments.rounds * arguments.prompts + JUDGED, UNUSED + arguments.judged
        seed = int(folder.name.rpartition("-")[2])
        drawn, _ = draw_all_prompts(PlaygroundSettings(seed=seed, prompts=taken + asked))
        file.write_text("".join(json.dumps({"prompt": prompt.text}) + "\n" for prompt in drawn[taken:]))
    return file


def round_name(arm: str, number: int) -> str:
    return f"{arm}, round {number}"


def best_name(arm: str) -> str:
    """What the arm would be used by: rounds may end before the last one."""
    return f"{arm}, the best round"


def summary(measured: Mapping[int, Qualities], rounds: int) -> str:
    of_arms = {arm: [round_name(arm, number) for number in range(1, rounds + 1)] for arm in ROUNDS}
    names = [BASE, *(name for arm, each in of_arms.items() for name in (*each, best_name(arm))), LONG]
    found = {name: {seed: known[name] for seed, known in measured.items() if name in known} for name in names}
    rows = [["", "true quality", "minus one long round", "seeds"]]
    for name, values in found.items():
        apart = [values[seed] - found[LONG][seed] for seed in values if seed in found[LONG]]
        against = "" if name == LONG else shown(Estimate.of(apart), 3, "+")
        rows.append([name, shown(Estimate.of(list(values.values())), 3), against, f"{len(values)}"])
    steps = [f"{name}: {[int(known[name]) for known in measured.values()]}" for name in steps_names()]
    return "\n".join([*markdown(rows), "", "95 % intervals over seeds; differences are paired by seed.", *steps, ""])


def markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def steps_names() -> list[str]:
    return [*(f"{arm}, {what}" for arm in ROUNDS for what in ("rounds done", "steps")), f"{LONG}, steps"]


if __name__ == "__main__":
    main()
