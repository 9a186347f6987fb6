"""What a rating would cost, told before anything is asked or loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mixdpo_ray.judging.estimate import estimate
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply_store import ReplyStore, reply_folder
from mixdpo_ray.raters.judge import JudgeRater
from mixdpo_ray.raters.rater import Rater, UnratedAnswer
from mixdpo_ray.rating.answered_prompts import read_what_is_rated
from mixdpo_ray.recipe.recipe import Recipe


@dataclass(frozen=True)
class RatingPlan:
    lines: tuple[str, ...]

    def describe(self) -> str:
        return "\n".join(self.lines)


def plan_ratings(recipe: Recipe) -> RatingPlan:
    read = read_what_is_rated(recipe)
    answers = [answer for prompt in read.prompts for answer in prompt.unrated]
    lines = [f"{len(answers):,} answers of {len(read.prompts):,} prompts: {read.origin}"]
    for name, rater in recipe.answers.rate.raters.items():
        lines += [f"{name}: {line}" for line in _price(recipe, rater, answers)]
    return RatingPlan((*lines, "nothing was asked: leave --dry-run out to rate them"))


def _price(recipe: Recipe, rater: Rater, answers: Sequence[UnratedAnswer]) -> list[str]:
    if not isinstance(rater, JudgeRater):
        return ["computed here, for nothing" if rater.needs_cluster else "known, for nothing"]
    judge = recipe.answers.judge
    assert judge is not None, "read_what_is_rated has seen to it"
    questions = chat_questions(rater, answers)
    if judge.http is None or judge.engine != "http":
        return [f"{len(questions):,} questions to the judge {judge.engine}, which costs nothing"]
    store = ReplyStore(reply_folder(recipe.output.storage_path, judge.http.model))
    return estimate(questions, judge.http, store).describe().splitlines()


def chat_questions(rater: JudgeRater, answers: Sequence[UnratedAnswer]) -> list[ChatQuestion]:
    sampling = rater.sampling
    return [
        ChatQuestion(messages, sampling.max_tokens, sampling.temperature, sampling.top_logprobs)
        for messages in rater.questions(answers)
    ]
