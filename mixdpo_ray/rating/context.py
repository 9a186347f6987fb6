"""What a cluster has for raters (raters/rater.py): models by the actor pool, and the recipe's judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

from mixdpo_ray.benchmarks.benchmark import JudgeSampling
from mixdpo_ray.benchmarks.templates import JudgeMessage
from mixdpo_ray.cluster.actor_pool import Pool
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.scoring_way import ScoredModel, scored_model
from mixdpo_ray.difficulty.metric import language_model
from mixdpo_ray.errors import ModelError
from mixdpo_ray.judges.judge import ChatJudge, open_judge
from mixdpo_ray.judging.question import ChatQuestion
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.pairs.tokens import PairTokenizer
from mixdpo_ray.raters.rater import UnratedAnswer
from mixdpo_ray.rating.rated_table import numbers_of
from mixdpo_ray.rating.workers import LogpWorker, RewardWorker
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.model import named_model, weights_identity
from mixdpo_ray.training.model_files import refuse_missing_folder, with_absolute_paths
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer, tokenizer_digest

Encoded = tuple[list[int], list[int]] | str  # prompt and answer, or the reason why they have no ids


class ClusterForRaters:
    """Ray is connected before anything is asked."""

    def __init__(self, recipe: Recipe, judge: ChatJudge | None = None):
        """`judge`: one that is open already, and whose budget is that of the whole job; else the recipe's is opened."""
        self.recipe, self.judge = recipe, judge
        self._encoded: dict[str, Encoded] = {}

    def rewards(
        self, name: str, model: ModelSettings, max_length: int, batch_size: int, answers: Sequence[UnratedAnswer]
    ) -> list[float]:
        where = f"answers.rate.raters.{name}.model"
        refuse_missing_folder(where, model.path)
        model = with_absolute_paths(model)
        content = {
            "reads": "rewards",
            **_identity(model),
            "tokenizer": tokenizer_digest(load_tokenizer(model, where)),
            "max_length": max_length,
        }
        longest_first = sorted(answers, key=lambda one: -len(one.text) - sum(len(m["content"]) for m in one.messages))
        texts = {one.answer_id: [one.messages, one.text] for one in longest_first}
        tokens = batch_size * max_length
        scored = scored_model(self.recipe, model, tokens, kind="AutoModelForSequenceClassification")
        pool = self._pool(name, RewardWorker, (model, where, max_length), scored)
        numbers = numbers_of(self.recipe, pool, model.path, content, texts, batch_size)
        return [numbers[one.answer_id] for one in answers]

    def logps(
        self, setting: str, path: str | None, revision: str | None, batch_size: int, answers: Sequence[UnratedAnswer]
    ) -> list[float | str]:
        policy = with_absolute_paths(self.recipe.model)
        model = language_model(policy, None)
        if path is not None:
            named = named_model(self.recipe.model, path, revision, setting)
            model = language_model(policy, named.path).model_copy(update={"revision": named.revision})
            self._refuse_other_tokens(setting, named)
        encoded = self._encode(answers)
        there = {one.answer_id: ids for one, ids in zip(answers, encoded, strict=True) if not isinstance(ids, str)}
        longest_first = dict(sorted(there.items(), key=lambda item: -len(item[1][0]) - len(item[1][1])))
        content = {
            "reads": "log-probs",
            **_identity(model),
            "tokenizer": tokenizer_digest(self._tokenizer),
            "lengths": self.recipe.data.model_dump(include={"max_prompt_length", "max_length", "truncation"}),
        }
        tokens, chunk = batch_size * self.recipe.data.max_length, self.recipe.train.logp_chunk_tokens
        scored = scored_model(self.recipe, model, tokens, min(tokens, chunk))
        pool = self._pool(setting.rpartition("raters.")[2], LogpWorker, (model, setting, chunk), scored)
        numbers = numbers_of(self.recipe, pool, model.path, content, longest_first, batch_size)
        return [
            ids if isinstance(ids, str) else numbers[one.answer_id] for one, ids in zip(answers, encoded, strict=True)
        ]

    def judged(
        self, name: str, questions: Sequence[tuple[JudgeMessage, ...]], sampling: JudgeSampling
    ) -> list[ChatReply]:
        with nullcontext(self.judge) if self.judge else open_judge(self.recipe) as judge:
            asked = [
                ChatQuestion(messages, sampling.max_tokens, sampling.temperature, sampling.top_logprobs)
                for messages in questions
            ]
            return judge.ask(asked, title=name, unit="rating")

    def _pool(self, title: str, actor: type, arguments: tuple[Any, ...], scored: ScoredModel) -> Pool:
        gpu, workers = uses_gpu(self.recipe.cluster), f"workers of rater {title}"
        return Pool(title, workers, actor, arguments, gpu, self.recipe.cluster, scored)

    @cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.recipe.model)

    def _encode(self, answers: Sequence[UnratedAnswer]) -> list[Encoded]:
        """Once for all models that read these tokens."""
        encoder = PairTokenizer(self._tokenizer, self.recipe.data)
        for one in answers:
            if one.answer_id not in self._encoded:
                self._encoded[one.answer_id] = encoder.encode_answer(one.messages, one.text, one.template)
        return [self._encoded[one.answer_id] for one in answers]

    def _refuse_other_tokens(self, setting: str, named: ModelSettings) -> None:
        own = load_tokenizer(named.model_copy(update={"tokenizer": None, "chat_template": None}), setting)
        if own.get_vocab() != self._tokenizer.get_vocab():
            raise ModelError(
                f"{setting} {named.path!r} has another vocabulary than {self.recipe.model.path!r}, whose tokens the "
                "answers are: give a model of the same family"
            )


def _identity(model: ModelSettings) -> Mapping[str, Any]:
    return {"settings": model.logps_identity(), "weights": weights_identity(model)}
