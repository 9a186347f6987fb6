"""How good a model's answers are by a judge, as numbers that stand beside held-out accuracy: prompt by prompt.

judge/win_rate    the share of prompts on which its answer beats that of the model before training; both orders
judge/quality     the mean rating, 1 to 10

Beside them: judge/prompts, the deviations over prompts that an interval follows from (judge/std/...), the mean length
of answers in characters, and of the win rate how often the verdict flips with the order.

All models answer with the same noise, so that luck hits them alike and fewer prompts tell them apart. The share that
the better one wins lies further from a half than between answers that know nothing of each other.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt, JudgedArm, JudgeQuestion, JudgeSampling
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.benchmarks.pairwise import won
from mixdpo_ray.benchmarks.single_rating import RATING_CRITERION, marked_rating, rating_question
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict, missing_verdicts
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.evaluation.held_out_answers import HeldOutPrompts, KeyedAnswers, held_out_prompts
from mixdpo_ray.intervals import NORMAL
from mixdpo_ray.judges.judge import ChatJudge
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.answer_table import Key
from mixdpo_ray.training.held_out_pairs import HeldOutPairs
from mixdpo_ray.training.metric_names import JUDGE_METRICS, JUDGED_QUALITY, WIN_RATE, metric_in_words

JUDGED_FILE = "judged_prompts.parquet"  # in the folder of a run: what each prompt came to
PROMPTS, LENGTH, FLIPS = "judge/prompts", "judge/answer_length", "judge/flip_rate"


@dataclass(frozen=True)
class JudgedModel:
    metrics: Mapping[str, float]
    prompts: HeldOutPairs  # its ids are those of prompts


@dataclass(frozen=True)
class AnswerJudging:
    """What is asked of every model, and of the judge."""

    prompts: HeldOutPrompts
    untrained: KeyedAnswers  # of the model before training; none where nothing is compared with it
    metrics: tuple[str, ...]
    comparison: Own = field(default_factory=Own)

    def judged(self, answers: KeyedAnswers, judge: ChatJudge) -> JudgedModel:
        values: dict[str, dict[str, float]] = {}
        metrics: dict[str, float] = {}
        if WIN_RATE in self.metrics:
            arm = self._compared(answers, judge)
            games = self.comparison.played(arm)
            shares = {item: [won(*game) for game in of_item.items()] for item, of_item in games.items()}
            values[WIN_RATE] = _by_prompt({item: fmean(both) for item, both in shares.items()})
            metrics[FLIPS] = fmean((one - 0.5) * (other - 0.5) < 0 for one, other in shares.values())
        if JUDGED_QUALITY in self.metrics:
            values[JUDGED_QUALITY] = _by_prompt(self._rated(answers, judge))
        ids = sorted(set.intersection(*map(set, values.values())))
        columns = {name: np.array([of_prompt[one] for one in ids]) for name, of_prompt in values.items()}
        for name, column in columns.items():
            metrics[name] = float(column.mean())
            if len(ids) > 1:
                metrics[deviation_name(name)] = float(column.std(ddof=1))
        metrics |= {PROMPTS: float(len(ids)), LENGTH: fmean(map(len, answers.values()))}
        return JudgedModel(metrics, HeldOutPairs.of(ids, columns))

    def _compared(self, answers: KeyedAnswers, judge: ChatJudge) -> JudgedArm:
        """Each draw with the same draw of the model before training, as an item of its own."""
        prompts = {
            _item(key): BenchmarkPrompt(_item(key), (self.prompts.texts[key[0]],), reference=(self.untrained[key],))
            for key in answers
            if key in self.untrained
        }
        given = {_item(key): (answer,) for key, answer in answers.items()}
        template = self.comparison.read_template()
        questions = [
            question
            for item, prompt in prompts.items()
            for question in self.comparison.questions(prompt, given[item], template)
        ]
        asked = [question for question in questions if question.settled is None]
        replies = judge.ask([_chat(question, self.comparison.judge) for question in asked])
        verdicts = {(one.item, one.game): one.settled for one in questions if one.settled is not None}
        for question, reply in zip(asked, replies, strict=True):
            verdicts[question.item, question.game] = self._read(question, reply)
        missing_verdicts(verdicts.values(), self.comparison.max_missing)
        return JudgedArm(prompts, given, verdicts)

    def _read(self, question: JudgeQuestion, reply: ChatReply) -> JudgeVerdict:
        return JudgeVerdict.unreadable("no_reply") if reply.failure else self.comparison.read(question, _reply(reply))

    def _rated(self, answers: KeyedAnswers, judge: ChatJudge) -> dict[str, float]:
        texts = self.prompts.texts
        asked = [
            (key, *rating_question(RATING_CRITERION, texts[key[0]], answer, "mark")) for key, answer in answers.items()
        ]
        sampling = self.comparison.judge
        replies = judge.ask([ChatQuestion(shown, sampling.max_tokens, sampling.temperature) for _, _, shown in asked])
        ratings = {
            _item(key): JudgeVerdict.unreadable("no_reply") if one.failure else marked_rating(number, _reply(one))
            for (key, number, _), one in zip(asked, replies, strict=True)
        }
        missing_verdicts(ratings.values(), self.comparison.max_missing)
        return {item: rating.value for item, rating in ratings.items() if rating.value is not None}


def own_benchmark(recipe: Recipe) -> Own:
    """The one of answers.evaluate.benchmarks, whose criterion is the judge's here too."""
    own = recipe.answers.evaluate.benchmarks.get("own")
    return own if isinstance(own, Own) else Own()


def answer_judging(recipe: Recipe, metrics: Sequence[str], most: int | None = None) -> AnswerJudging:
    """The prompts of a recipe, and the answers of its model before training, drawn once. Ray is connected."""
    prompts, untrained = held_out_prompts(recipe, uses_gpu(recipe.cluster), most=most, untrained=WIN_RATE in metrics)
    return AnswerJudging(prompts, untrained, tuple(metrics), own_benchmark(recipe))


def judging_identity(recipe: Recipe) -> dict[str, Any]:
    """What decides what a judge says of a model: others are not comparable."""
    assert recipe.answers.judge is not None, "recipe.py refuses such a metric without a judge"
    judge, sample = recipe.answers.judge, recipe.answers.sample
    served = judge.http if judge.engine == "http" else None
    return {
        "engine": judge.engine,
        "model": judge.model if served is None else served.model,
        **({"parameters": served.parameters} if served is not None and served.parameters else {}),
        **judge.model_dump(include={"revision"}, exclude_defaults=True),
        **own_benchmark(recipe).model_dump(include={"criterion"}, exclude_defaults=True),
        **sample.model_dump(mode="json", include={"chat_template_kwargs"}, exclude_defaults=True),
        **sample.model_dump(mode="json", include={"prompts", "answers_each", "decoding", "system_prompt"}),
    }


def deviation_name(metric: str) -> str:
    """The name of a metric's standard deviation over prompts."""
    return metric.replace("judge/", "judge/std/", 1)


def metrics_in_words(metrics: Mapping[str, float]) -> str:
    """What was measured with its 95 % interval over prompts."""
    told = []
    for name in JUDGE_METRICS:
        if name in metrics:
            half = NORMAL * metrics.get(deviation_name(name), math.nan) / math.sqrt(metrics[PROMPTS])
            shown = f"{metric_in_words(name)} {metrics[name]:.3f}"
            told.append(f"{shown} ± {half:.3f}" if math.isfinite(half) else shown)
    return f"{', '.join(told)} ({metrics[PROMPTS]:.0f} held-out prompts)"


def _item(key: Key) -> str:
    return f"{key[0]} {key[1]}"


def _by_prompt(by_item: Mapping[str, float]) -> dict[str, float]:
    """Means over the draws of each prompt."""
    found: dict[str, list[float]] = defaultdict(list)
    for item, value in by_item.items():
        found[item.rpartition(" ")[0]].append(value)
    return {prompt: fmean(values) for prompt, values in found.items()}


def _chat(question: JudgeQuestion, sampling: JudgeSampling) -> ChatQuestion:
    return ChatQuestion(question.messages, sampling.max_tokens, sampling.temperature, sampling.top_logprobs)


def _reply(reply: ChatReply) -> JudgeReply:
    return JudgeReply(reply.text, reply.first_logps, reply.cut_off)
