"""What the wrong metric costs: one search over objectives, decided by held-out accuracy and by the judge.

    python -m tests.measure.winners --seeds 5 --out FOLDER

Every seed is a playground with a search of its own, one trial an objective at its defaults. Both metrics are measured
on the same held-out pairs and their prompts, so that the same trials have two winners. What each model is worth is the
true quality of its answers to other prompts, drawn with other noise, which decided nothing. A trial that has ended is
not trained again: the same command goes on. Written: winners.json and winners.txt.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray

from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.cluster.trial_slots import cpus_to_start_with
from mixdpo_ray.evaluation.judged_model import PROMPTS, deviation_name
from mixdpo_ray.intervals import NORMAL, Estimate
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.space import with_settings
from mixdpo_ray.search.tune import tune
from mixdpo_ray.training.metric_names import JUDGE_METRICS, JUDGED_QUALITY, WIN_RATE
from tests.measure.winners_evaluated import EvaluatedWinner, evaluated
from tests.measure.winners_trial import ANSWERS_EACH, MeasuredTrial, playground_at

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground-compare.yaml"
OBJECTIVES = ("dpo", "ipo", "simpo", "orpo", "slic", "cpo", "kto", "sppo")
ACCURACY = "eval_rewards/accuracies"
SHOWN = ("accuracy", "win_rate", "true_win_rate", "independent_win_rate", "quality")
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
        "guard": "judge/quality >= 1",  # always kept: it is measured, too
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
    rating: float  # by the judge, there
    rating_half: float
    prompts: int
    quality: float  # true, on prompts that decided nothing
    quality_half: float
    true_win_rate: float  # there, over the model before training with the same noise
    true_half: float
    independent_win_rate: float  # there, over answers of other draws
    base_quality: float  # of the model before training, there


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


def searched(out: Path, seed: int) -> tuple[list[Candidate], EvaluatedWinner]:
    """Every objective of a seed, and what jobs/evaluate.py says of the judge's winner; what is there is read."""
    recipe = recipe_of_seed(out, seed)
    playground = playground_at(out / f"seed-{seed}" / "playground", seed)
    with connected(recipe.cluster, cpus_to_start_with(recipe.cluster, recipe.tune.max_concurrent_trials)):
        if not playground.exists:
            ray.get(ray.remote(num_cpus=1)(made).remote(playground))
        folder = Path(tune(recipe, MeasuredTrial).folder)
        summaries = sorted(folder.glob("trials/*/rung-1/summary.json"))
        found = {path.parents[1].name: candidate(seed, json.loads(path.read_text()), path) for path in summaries}
        winner = max(found, key=lambda name: found[name].win_rate)
        told = evaluated(recipe, playground, folder / "pareto" / f"trial-{winner}.yaml")
    return list(found.values()), told


def made(playground: PlaygroundFolder) -> None:
    import torch

    torch.set_num_threads(1)
    playground.make()


def candidate(seed: int, summary: dict[str, Any], path: Path) -> Candidate:
    objective = json.loads(path.with_name("recipe.json").read_text())["recipe"]["objective"]["name"]
    found, true = summary["eval_after"], summary["judged"]
    halves = [NORMAL * found[deviation_name(name)] / math.sqrt(found[PROMPTS]) for name in JUDGE_METRICS]
    return Candidate(
        seed=seed,
        objective=objective,
        accuracy=found[ACCURACY],
        win_rate=found[WIN_RATE],
        half=halves[0],
        rating=found[JUDGED_QUALITY],
        rating_half=halves[1],
        prompts=round(found[PROMPTS]),
        quality=true["quality"],
        quality_half=true["quality_half"],
        true_win_rate=true["win_rate"],
        true_half=true["win_rate_half"],
        independent_win_rate=true["independent_win_rate"],
        base_quality=true["base_quality"],
    )


def report(found: Sequence[Candidate], evaluations: Sequence[EvaluatedWinner], seconds: float) -> str:
    seeds = sorted({one.seed for one in found})
    of_seed = {seed: [one for one in found if one.seed == seed] for seed in seeds}
    by_accuracy = [max(of_seed[seed], key=lambda one: one.accuracy) for seed in seeds]
    by_judge = [max(of_seed[seed], key=lambda one: one.win_rate) for seed in seeds]
    best = [max(of_seed[seed], key=lambda one: one.quality) for seed in seeds]
    lines = [f"{len(seeds)} seeds, {len(OBJECTIVES)} objectives each, {seconds:.0f} s", ""]
    heads = ("accuracy", "win rate (judge)", "true win rate", "independent", "true quality")
    lines.append(f"{'objective':<12}" + "".join(f"{head:>20}" for head in heads))
    for name in OBJECTIVES:
        own = [one for one in found if one.objective == name]
        columns = [[getattr(one, key) for one in own] for key in SHOWN]
        lines.append(f"{name:<12}" + "".join(f"{interval(column):>20}" for column in columns))
    lines += ["", f"{'seed':<6}{'by accuracy':<22}{'by the judge':<22}{'best of all':<22}"]
    for winners in zip(by_accuracy, by_judge, best, strict=True):
        told = "".join(f"{f'{one.objective} {one.quality:.3f}':<22}" for one in winners)
        lines.append(f"{winners[0].seed:<6}{told}")
    base = [of_seed[seed][0].base_quality for seed in seeds]
    worth = {"accuracy": by_accuracy, "the judge": by_judge, "true quality itself": best}
    lines += [
        "",
        *(f"winner by {name}: true quality {interval([w.quality for w in won])}" for name, won in worth.items()),
    ]
    lines.append(f"the model before training: true quality {interval(base)}")
    cost = [judge.quality - accuracy.quality for judge, accuracy in zip(by_judge, by_accuracy, strict=True)]
    lines.append(f"what the wrong metric costs: {interval(cost)} of true quality, 1 to 10")
    lines += [
        *agreement(found),
        "",
        "jobs/evaluate.py on the judge's winner, share won against the model before training:",
    ]
    lines += [
        *(one.describe() for one in evaluations),
        "",
        "intervals: 95 %, over seeds (Student's t); differences are paired by seed",
    ]
    return "\n".join(lines)


def agreement(found: Sequence[Candidate]) -> list[str]:
    """Whether what the judge says of some prompts holds on others; objectives share prompts, and err together."""
    kinds = {
        "win rate": [(one.win_rate, one.half, one.true_win_rate, one.true_half) for one in found],
        "rating": [(one.rating, one.rating_half, one.quality, one.quality_half) for one in found],
    }
    lines = []
    for name, rows in kinds.items():
        inside = sum(abs(said - true) <= math.hypot(half, other) for said, half, true, other in rows)
        apart = sum(said - true for said, _, true, _ in rows) / len(rows)
        lines.append(
            f"the judge's {name} on {found[0].prompts} prompts against the truth on others: equal within the 95 % "
            f"interval of both in {inside} of {len(rows)}, {apart:+.4f} on average"
        )
    return lines


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
    began = time.monotonic()
    found, told = list[Candidate](), list[EvaluatedWinner]()
    for seed in range(options.seeds):
        candidates, winner = searched(out, seed)
        found += candidates
        told.append(winner)
        everything = {"candidates": [asdict(one) for one in found], "evaluated": [asdict(one) for one in told]}
        (out / "winners.json").write_text(json.dumps(everything, indent=1))
        text = report(found, told, time.monotonic() - began)
        (out / "winners.txt").write_text(f"{text}\n")
        print(text, flush=True)


if __name__ == "__main__":
    main()
