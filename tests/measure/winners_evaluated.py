"""Does jobs/evaluate.py tell the truth? Its verdict on a search's winner, against the truth on other prompts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mixdpo_ray.evaluation.evaluate import evaluate
from mixdpo_ray.evaluation.output import EvaluateReport
from mixdpo_ray.playground.build import PlaygroundFolder, draw_all_prompts
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.train import train
from mixdpo_ray.search.space import with_settings
from tests.measure.winners_trial import true_quality

EVALUATED = 400  # prompts of the thousand that no pair was made from; the truth is of all of them, with other noise


@dataclass(frozen=True)
class EvaluatedWinner:
    seed: int
    said: float  # share of prompts won against the model before training, with its 95 % interval
    low: float
    high: float
    true: float
    true_half: float

    def describe(self) -> str:
        far = max(self.low - self.true, self.true - self.high)
        inside = "inside" if far <= 0 else f"{far:.3f} outside"
        return (
            f"seed {self.seed}: {self.said:.3f} ({self.low:.3f} to {self.high:.3f}), true {self.true:.3f} ± "
            f"{self.true_half:.3f}, {inside}"
        )


def evaluated(recipe: Recipe, playground: PlaygroundFolder, winner: Path) -> EvaluatedWinner:
    """Train a search's winner as its own recipe says, and evaluate it beside the model before training."""
    trained = load_recipe(str(winner), ["output.name=winner"])
    report = train(trained)
    _, prompts = draw_all_prompts(playground.settings)
    file = playground.path.parent / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt.text}) + "\n" for prompt in prompts[:EVALUATED]))
    asked = {
        "benchmarks": {"own": {"prompts": str(file)}},
        "arms": {"before": str(playground.base), "winner": report.folder},
        "against": "before",
    }
    found = evaluate(with_settings(trained, {"answers.evaluate": asked}))
    assert isinstance(found, EvaluateReport)
    (benchmark,) = found.results.benchmarks
    score = next(arm for arm in benchmark.arms if arm.name == "winner").scores["win_rate"]
    truth = true_quality(playground, str(Path(report.folder) / "model"))
    said, low, high = (share / 100 for share in (score.value, score.low, score.high))
    return EvaluatedWinner(recipe.train.seed, said, low, high, truth["win_rate"], truth["win_rate_half"])
