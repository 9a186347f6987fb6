"""What the wrong metric costs: one search over objectives, decided by held-out accuracy and by the judge.

    python -m tests.measure.winners --seeds 5 --out FOLDER

Every seed is a playground with a search of its own, one trial an objective at its defaults. Both metrics are measured
on the same held-out pairs and their prompts, so that the same trials have two winners. What each model is worth is the
true quality of its answers to other prompts, which decided nothing, by another sampler. A trial that has ended is not
trained again: the same command goes on. Written: winners.json and winners.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.cluster.trial_slots import cpus_to_start_with
from mixdpo_ray.comparison.judged_arms import both_judges
from mixdpo_ray.evaluation.judged_model import PROMPTS, deviation_name
from mixdpo_ray.intervals import NORMAL, Estimate
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.playground.model_quality import model_quality
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.space import with_settings
from mixdpo_ray.search.trial import Trial
from mixdpo_ray.search.tune import tune
from mixdpo_ray.training.metric_names import WIN_RATE

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground-compare.yaml"
OBJECTIVES = ("dpo", "ipo", "simpo", "orpo", "slic", "cpo", "kto", "apo_zero")
ACCURACY = "eval_rewards/accuracies"
ANSWERS_EACH = 4  # to every prompt, by either sampler
CONSTANT = {
    "curriculum.mode": "sorted_dpo",  # the objective alone, on shuffled pairs
    "curriculum.order": "shuffled",
    "data.heldout.fraction": 0.08,
    "answers.judge": {"engine": "playground"},
    "answers.sample": {"answers_each": ANSWERS_EACH, "batch_size": 512, "decoding": {"max_new_tokens": 14}},
    "tune": {
        "space": {"objective.name": {"choice": {name: {} for name in OBJECTIVES}}},
        "sampler": "grid",
        "num_samples": len(OBJECTIVES),
        "metric": [ACCURACY, WIN_RATE],
        "early_stopping": {"pruner": "none"},
        "max_concurrent_trials": 2,
        "workers_per_trial": 1,
    },
}


@dataclass(frozen=True)
class Candidate:
    seed: int
    objective: str
    accuracy: float
    win_rate: float  # by the judge, on the prompts of the held-out pairs
    half: float  # of its 95 % interval over prompts
    prompts: int
    quality: float  # true, on prompts that decided nothing
    true_win_rate: float  # there


class MeasuredTrial(Trial):
    """Also measures what its model is worth, while it is there."""

    def done_with_model(self, folder: str) -> Callable[[str], dict[str, float]] | None:
        recipe = self.shared.recipe
        playground = playground_at(Path(recipe.model.path).parent, recipe.train.seed)
        return both_judges(super().done_with_model(folder), partial(true_quality, playground))


def true_quality(playground: PlaygroundFolder, model: str) -> dict[str, float]:
    return model_quality(playground, Path(model), ANSWERS_EACH)


def playground_at(folder: Path, seed: int) -> PlaygroundFolder:
    return PlaygroundFolder(folder, PlaygroundSettings(seed=seed, base_steps=600, prompts=4000, spread=1.0, noise=2.0))


def recipe_of_seed(out: Path, seed: int) -> Recipe:
    playground = playground_at(out / f"seed-{seed}" / "playground", seed)
    own = {
        "output.storage_path": str(out / f"seed-{seed}"),
        "output.name": "winners",
        "model.path": str(playground.base),
        "data.source.path": str(playground.pairs),
        "train.seed": seed,
        "curriculum.seed": seed,
        "compare": {},
    }
    return with_settings(load_recipe(str(RECIPE)), {**own, **CONSTANT})


def searched(out: Path, seed: int) -> list[Candidate]:
    """Every objective of a seed; what is there already is read."""
    recipe = recipe_of_seed(out, seed)
    with connected(recipe.cluster, cpus_to_start_with(recipe.cluster, recipe.tune.max_concurrent_trials)):
        playground = playground_at(out / f"seed-{seed}" / "playground", seed)
        if not playground.exists:
            ray.get(ray.remote(num_cpus=1)(made).remote(playground))
        output = tune(recipe, MeasuredTrial)
    folder = Path(output.folder) / "trials"
    return [
        candidate(seed, json.loads(path.read_text()), path) for path in sorted(folder.glob("*/rung-1/summary.json"))
    ]


def made(playground: PlaygroundFolder) -> None:
    import torch

    torch.set_num_threads(1)
    playground.make()


def candidate(seed: int, summary: dict[str, Any], path: Path) -> Candidate:
    objective = json.loads(path.with_name("recipe.json").read_text())["recipe"]["objective"]["name"]
    found, true = summary["eval_after"], summary["judged"]
    half = NORMAL * found[deviation_name(WIN_RATE)] / math.sqrt(found[PROMPTS])
    count = round(found[PROMPTS])
    return Candidate(seed, objective, found[ACCURACY], found[WIN_RATE], half, count, true["quality"], true["win_rate"])


def report(found: Sequence[Candidate], seconds: float) -> str:
    seeds = sorted({one.seed for one in found})
    of_seed = {seed: [one for one in found if one.seed == seed] for seed in seeds}
    by_accuracy = [max(of_seed[seed], key=lambda one: one.accuracy) for seed in seeds]
    by_judge = [max(of_seed[seed], key=lambda one: one.win_rate) for seed in seeds]
    best = [max(of_seed[seed], key=lambda one: one.quality) for seed in seeds]
    lines = [f"{len(seeds)} seeds, {len(OBJECTIVES)} objectives each, {seconds:.0f} s", ""]
    lines.append(f"{'objective':<12}{'accuracy':>20}{'win rate (judge)':>20}{'true win rate':>20}{'true quality':>20}")
    for name in OBJECTIVES:
        own = [one for one in found if one.objective == name]
        columns = [[getattr(one, key) for one in own] for key in ("accuracy", "win_rate", "true_win_rate", "quality")]
        lines.append(f"{name:<12}" + "".join(f"{interval(column):>20}" for column in columns))
    lines += ["", f"{'seed':<6}{'by accuracy':<22}{'by the judge':<22}{'best of all':<22}"]
    for winners in zip(by_accuracy, by_judge, best, strict=True):
        told = "".join(f"{f'{one.objective} {one.quality:.3f}':<22}" for one in winners)
        lines.append(f"{winners[0].seed:<6}{told}")
    worth = {"accuracy": by_accuracy, "the judge": by_judge, "true quality itself": best}
    lines += [
        "",
        *(f"winner by {name}: true quality {interval([w.quality for w in won])}" for name, won in worth.items()),
    ]
    cost = [judge.quality - accuracy.quality for judge, accuracy in zip(by_judge, by_accuracy, strict=True)]
    lines.append(f"what the wrong metric costs: {interval(cost)} of true quality, 1 to 10")
    inside = sum(abs(one.win_rate - one.true_win_rate) <= one.half for one in found)
    apart = [one.win_rate - one.true_win_rate for one in found]
    lines.append(
        f"the judge's win rate on {found[0].prompts} prompts against the true one on others: within its 95 % interval "
        f"in {inside} of {len(found)}, {sum(apart) / len(apart):+.4f} on average"
    )
    lines.append("intervals: 95 %, over seeds (Student's t); differences are paired by seed")
    return "\n".join(lines)


def interval(values: Sequence[float]) -> str:
    estimate = Estimate.of(values)
    return f"{estimate.mean:.3f}" + (f" ± {estimate.half:.3f}" if math.isfinite(estimate.half) else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    began, found = time.monotonic(), list[Candidate]()
    for seed in range(options.seeds):
        found += searched(out, seed)
        (out / "winners.json").write_text(json.dumps([asdict(one) for one in found], indent=1))
        text = report(found, time.monotonic() - began)
        (out / "winners.txt").write_text(f"{text}\n")
        print(text, flush=True)


if __name__ == "__main__":
    main()
