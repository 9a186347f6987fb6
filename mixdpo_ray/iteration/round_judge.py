"""How often the recipe's judge prefers a round's answers to another model's, on the same prompts and in both orders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixdpo_ray import storage
from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt, Game, JudgedArm, JudgeQuestion
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict
from mixdpo_ray.iteration.round_recipes import judged_prompts_file
from mixdpo_ray.judges.judge import ChatJudge
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import AskedPrompt

AnswerTexts = Mapping[str, str]  # an answer by prompt_id


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
    rows = map(json.loads, storage.read_bytes(file).decode().splitlines())
    return {row["prompt_id"]: row["answer"] for row in rows}


def judge_answers(
    recipe: Recipe,
    judge: ChatJudge,
    prompts: Sequence[AskedPrompt],
    mine: AnswerTexts,
    others: Mapping[str, AnswerTexts],
) -> dict[str, JudgedAgainst]:
    """One model's answers against each other model's."""
    benchmark, judged = Own(prompts=judged_prompts_file(recipe)), {}
    for name, theirs in others.items():
        both = [one for one in prompts if one.prompt_id in mine and one.prompt_id in theirs]
        shown = {
            one.prompt_id: BenchmarkPrompt(one.prompt_id, (_request(one.messages),), "", (theirs[one.prompt_id],))
            for one in both
        }
        answers = {item: (mine[item],) for item in shown}
        template = benchmark.read_template()
        questions = [
            question
            for item, prompt in shown.items()
            for question in benchmark.questions(prompt, answers[item], template)
        ]
        arm = JudgedArm(shown, answers, _verdicts(benchmark, judge, questions))
        judged[name] = _summed_up(benchmark, arm)
    return judged


def _verdicts(
    benchmark: Own, judge: ChatJudge, questions: Sequence[JudgeQuestion]
) -> dict[tuple[str, Game], JudgeVerdict]:
    verdicts = {(one.item, one.game): one.settled for one in questions if one.settled is not None}
    open_questions, how = [one for one in questions if one.settled is None], benchmark.judge
    asked = [ChatQuestion(one.messages, how.max_tokens, how.temperature, how.top_logprobs) for one in open_questions]
    for question, reply in zip(open_questions, judge.ask(asked), strict=True):
        verdicts[question.item, question.game] = _read(benchmark, question, reply)
    return verdicts


def _read(benchmark: Own, question: JudgeQuestion, reply: ChatReply) -> JudgeVerdict:
    if reply.failure:
        return JudgeVerdict.unreadable("no_reply")
    return benchmark.read(question, JudgeReply(reply.text, reply.first_logps, reply.cut_off))


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


def _request(messages: Sequence[Message]) -> str:
    """What a judge is shown of a conversation: the text alone where there is one turn."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
