"""Ratings for answers, and for pairs that have none: what is missing is rated, and written as prepare reads it.

<storage>/rated/<fingerprint>/              the numbers of one model (rated_table.py); a judge's replies lie in judged/
<storage>/rated/<name>.jsonl                prompts with rated answers (format rated_answers), or pairs with two scores
<storage>/rated/<name>.quarantine.jsonl     prompts of which no pair can be made, each with its reason
<storage>/rated/<name>.png                  how ratings and margins lie

A killed job has lost the batches that were being rated: the same command rates the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import numpy as np

from mixdpo_ray.benchmarks.verdict import JudgeVerdict
from mixdpo_ray.cluster.command import before_ray
from mixdpo_ray.cluster.preflight import ready_cluster
from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.judges.judge import ChatJudge
from mixdpo_ray.pairs.quarantine import QUARANTINE
from mixdpo_ray.raters.rater import UNRATED, UnratedAnswer
from mixdpo_ray.rating.answered_prompts import ReadAnswers, read_what_is_rated
from mixdpo_ray.rating.combine import Groups, Ratings, combined
from mixdpo_ray.rating.context import ClusterForRaters
from mixdpo_ray.rating.output import ratings_file, write_ratings
from mixdpo_ray.rating.report import RateReport
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import refuse_too_many


def rate_answers(recipe: Recipe, *, judge: ChatJudge | None = None) -> RateReport:
    """Rate what the recipe's section answers.rate names.

    `judge`: the recipe's, where a longer job has it open, whose budget counts what is asked here too.
    """
    read = read_what_is_rated(recipe)
    refuse_too_many(read.refused, read.rows, read.origin, ratings_file(recipe, QUARANTINE), read.source, read.setting)
    verdicts = _verdicts(recipe, judge, [answer for prompt in read.prompts for answer in prompt.unrated])
    _refuse_missing(verdicts, recipe.answers.rate.max_missing)
    ratings = {name: _numbers(of_one) for name, of_one in verdicts.items()}
    groups = groups_of(read)
    settings = recipe.answers.rate
    scores = combined(list(ratings.values()), groups, settings.combine, settings.scale)
    return write_ratings(recipe, read, verdicts, ratings, groups, scores)


def groups_of(read: ReadAnswers) -> Groups:
    ends = np.cumsum([len(prompt.answers) for prompt in read.prompts]).tolist()
    return [slice(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True)]


def _verdicts(
    recipe: Recipe, judge: ChatJudge | None, answers: Sequence[UnratedAnswer]
) -> dict[str, list[JudgeVerdict]]:
    raters = recipe.answers.rate.raters
    on_cluster = any(rater.needs_cluster for rater in raters.values())
    if on_cluster:
        before_ray("rate")
    with ready_cluster(recipe, trains=False) if on_cluster else nullcontext():
        context = ClusterForRaters(recipe, judge)
        return {name: rater.rate(name, answers, context) for name, rater in raters.items()}


def _refuse_missing(verdicts: Mapping[str, Sequence[JudgeVerdict]], allowed: float) -> None:
    for name, of_one in verdicts.items():
        reasons = Counter(verdict.reason for verdict in of_one if verdict.reason)
        missing = sum(reasons.values())
        if missing > allowed * len(of_one):
            told = ", ".join(f"{count} {reason} ({UNRATED[reason]})" for reason, count in reasons.most_common(3))
            raise EvaluationError(
                f"{missing} of {len(of_one)} ratings by {name} are missing, more than answers.rate.max_missing allows "
                f"({allowed:g}): {told}; the same command asks again where a call failed and keeps all else: look at "
                "what the rater was given, or raise that share"
            )


def _numbers(verdicts: Sequence[JudgeVerdict]) -> Ratings:
    return np.array([np.nan if verdict.value is None else verdict.value for verdict in verdicts], np.float64)
