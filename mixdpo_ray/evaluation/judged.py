"""Answers of several arms before one judge: every game of every arm in one go, so that equal questions are one.

A benchmark asks and reads, a judge answers; nothing here knows where answers come from or whose verdicts they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mixdpo_ray.benchmarks.benchmark import Benchmark, BenchmarkPrompt, Game, JudgedArm, JudgeQuestion
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict
from mixdpo_ray.evaluation.results import JudgingCost
from mixdpo_ray.judges.judge import ChatJudge
from mixdpo_ray.judging.budget import Cost
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.recipe.judge import PriceSettings

AnswerTexts = Mapping[str, tuple[str, ...]]  # the turns of one arm by item
AskedGame = tuple[str, str, Game]  # arm, item, game


@dataclass(frozen=True)
class JudgedAnswers:
    arms: Mapping[str, JudgedArm]
    replies: Mapping[AskedGame, ChatReply]  # of questions that needed a call, the last ones where there were two
    every: tuple[ChatReply, ...]  # each question's once

    def failures(self, arm: str) -> dict[str, int]:
        """Calls for this arm that gave no reply, by what the server said."""
        return dict(
            Counter(reply.failure for (name, _, _), reply in self.replies.items() if name == arm and reply.failure)
        )

    def cost(self, prices: PriceSettings) -> JudgingCost:
        """What all the verdicts took, whoever paid them."""
        answered = [reply for reply in self.every if not reply.failure]
        read, written = (sum(one or 0 for one in each) for each in zip(*_tokens(answered), strict=True))
        price = Cost(len(answered), read, written).price(prices)
        return JudgingCost(len(answered), read, written, price)


def judge_answers(
    benchmark: Benchmark,
    prompts: Sequence[BenchmarkPrompt],
    answers: Mapping[str, AnswerTexts],
    judge: ChatJudge,
    *,
    title: str = "judge",
) -> JudgedAnswers:
    """Every arm with its verdicts; an answer that is not there is a missing verdict."""
    template = benchmark.read_template()
    questions = games_of(benchmark, prompts, answers)
    open_games = {game: question for game, question in questions.items() if question.settled is None}
    replies = ask_each_once(judge, benchmark, open_games.values(), title)
    last = dict(zip(open_games, replies, strict=True))
    every = list(replies)
    more = {
        game: again
        for game, question in open_games.items()
        if not last[game].failure and (again := benchmark.again(question, judge_reply(last[game]), template))
    }
    if more:
        second = ask_each_once(judge, benchmark, more.values(), f"{title}, once more")
        last |= zip(more, second, strict=True)
        every += second
    asked = {**open_games, **more}
    verdicts: dict[str, dict[tuple[str, Game], JudgeVerdict]] = {name: {} for name in answers}
    for (name, item, game), question in questions.items():
        if question.settled is not None:
            verdicts[name][item, game] = question.settled
        elif not (reply := last[name, item, game]).failure:
            verdicts[name][item, game] = benchmark.read(asked[name, item, game], judge_reply(reply))
    of_item = {prompt.item: prompt for prompt in prompts}
    arms = {name: JudgedArm(of_item, answers[name], verdicts[name]) for name in answers}
    return JudgedAnswers(arms, last, tuple({id(reply): reply for reply in every}.values()))


def games_of(
    benchmark: Benchmark, prompts: Sequence[BenchmarkPrompt], answers: Mapping[str, AnswerTexts]
) -> dict[AskedGame, JudgeQuestion]:
    """Every question that is asked of every arm."""
    template = benchmark.read_template()
    return {
        (name, prompt.item, question.game): question
        for name, texts in answers.items()
        for prompt in prompts
        if prompt.item in texts
        for question in benchmark.questions(prompt, texts[prompt.item], template)
    }


def chat_question(benchmark: Benchmark, question: JudgeQuestion) -> ChatQuestion:
    sampling = type(benchmark).judge
    return ChatQuestion(question.messages, sampling.max_tokens, sampling.temperature, sampling.top_logprobs)


def judge_reply(reply: ChatReply) -> JudgeReply:
    return JudgeReply(reply.text, reply.first_logps, reply.cut_off)


def ask_each_once(
    judge: ChatJudge, benchmark: Benchmark, questions: Iterable[JudgeQuestion], title: str
) -> list[ChatReply]:
    """A reply to each, in their order; of equal questions it is one and the same object."""
    every = list(questions)
    keys = [json.dumps(question.messages) for question in every]
    unique = dict(zip(keys, every, strict=True))
    if not unique:
        return []
    replies = judge.ask([chat_question(benchmark, question) for question in unique.values()], title=title)
    found = dict(zip(unique, replies, strict=True))
    return [found[key] for key in keys]


def _tokens(replies: Sequence[ChatReply]) -> list[tuple[int, int]]:
    return [(reply.input_tokens or 0, reply.output_tokens or 0) for reply in replies] or [(0, 0)]
