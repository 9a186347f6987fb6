"""How often the recipe's judge prefers a round's answers to another model's, on the same prompts and in both orders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixdpo_ray import storage
from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt, JudgedArm
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.evaluation.judged import judge_answers
from mixdpo_ray.evaluation.judged_model import own_benchmark
from mixdpo_ray.judges.judge import ChatJudge
from mixdpo_ray.raters.judge import conversation_text
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import AskedPrompt

RoundAnswers = Mapping[str, str]  # an answer by prompt_id
Others = Mapping[str, RoundAnswers]  # of each model that a round's is compared with


@dataclass(frozen=True)
class JudgedAgainst:
    """Shares of a whole, not percent; the interval is of 95 %, over drawn prompts."""

    win_rate: float
    low: float
    high: float
    length_controlled: float
    flip_rate: float
    prompts: int
    missing: Mapping[str, int]


def read_answers(file: str) -> dict[str, str]:
    """The answers that jobs/sample.py has written, one to each prompt."""
    rows = map(json.loads, storage.read_bytes(file).splitlines())  # of bytes: texts may hold U+2028
    return {row["prompt_id"]: row["answer"] for row in rows}


def judge_round(
    recipe: Recipe, judge: ChatJudge, prompts: Sequence[AskedPrompt], mine: RoundAnswers, others: Others
) -> dict[str, JudgedAgainst]:
    """One model's answers against each other model's."""
    benchmark, judged = own_benchmark(recipe), {}
    for name, theirs in others.items():
        both = [one for one in prompts if one.prompt_id in mine and one.prompt_id in theirs]
        shown = [
            BenchmarkPrompt(one.prompt_id, (conversation_text(one.messages),), "", (theirs[one.prompt_id],))
            for one in both
        ]
        answers = {name: {one.prompt_id: (mine[one.prompt_id],) for one in both}}
        arms = judge_answers(benchmark, shown, answers, judge, title=f"judge, over the {name}").arms
        judged[name] = _summed_up(benchmark, arms[name])
    return judged


def _summed_up(benchmark: Own, arm: JudgedArm) -> JudgedAgainst:
    found = benchmark.scores({"": arm})[""]
    win_rate = found.scores["win_rate"]
    flips = found.scores.get("flip_rate")
    return JudgedAgainst(
        win_rate=win_rate.value / 100,
        low=win_rate.low / 100,
        high=win_rate.high / 100,
        length_controlled=found.scores["length_controlled_win_rate"].value / 100,
        flip_rate=flips.value / 100 if flips else 0.0,
        prompts=win_rate.prompts,
        missing=found.missing,
    )
