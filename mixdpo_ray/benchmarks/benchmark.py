"""What every benchmark is: frozen settings, what it asks a judge, how a verdict is read, and what scores come out.

Nothing here calls a model. The order of use: read_prompts and read_template; questions for each answer; read for each
reply (and again, where it says that the judge is to be asked once more); scores of all arms together, as some are
fitted jointly. Prompts, references and the judge's templates belong to their benchmarks and come from files of the
user's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from mixdpo_ray.benchmarks.injection import speaks_to_judge
from mixdpo_ray.benchmarks.resampling import RESAMPLES, BenchmarkScore, Statistic, with_interval
from mixdpo_ray.benchmarks.templates import JudgeMessage
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict, missing_verdicts
from mixdpo_ray.settings import Settings

Game = Literal["baseline_first", "model_first", "turn_1", "turn_2"]
Template = Mapping[str, tuple[JudgeMessage, ...]]  # by the kind of question


@dataclass(frozen=True)
class BenchmarkPrompt:
    item: str  # what rows are joined by; no row number ever is
    turns: tuple[str, ...]  # of the user
    category: str = ""
    reference: tuple[str, ...] = ()  # the answers by turn that a model's are compared with, or checked by


@dataclass(frozen=True)
class JudgeSampling:
    max_tokens: int
    temperature: float
    top_logprobs: int = 0  # of the first token


@dataclass(frozen=True)
class JudgeQuestion:
    item: str
    game: Game
    messages: tuple[JudgeMessage, ...]
    settled: JudgeVerdict | None = None  # what needs no call
    said: str | None = None  # by the judge, in an earlier attempt
    number: str = ""  # that marks of own protocols carry


@dataclass(frozen=True)
class JudgedArm:
    """One model's answers and what was read of them; a missing verdict may be absent or have a reason."""

    prompts: Mapping[str, BenchmarkPrompt]  # by item
    answers: Mapping[str, tuple[str, ...]]  # by turn
    verdicts: Mapping[tuple[str, Game], JudgeVerdict]

    def verdict(self, item: str, game: Game) -> JudgeVerdict:
        if item not in self.answers:
            return JudgeVerdict.unreadable("no_answer")
        return self.verdicts.get((item, game)) or JudgeVerdict.unreadable("no_reply")


@dataclass(frozen=True)
class ArmScores:
    scores: Mapping[str, BenchmarkScore]
    missing: Mapping[str, int]  # verdicts by reason
    notes: tuple[str, ...] = ()


class Benchmark(Settings, ABC):
    main: ClassVar[str]  # the score that arms are compared by
    judge: ClassVar[JudgeSampling]  # how the judge is sampled

    max_missing: float = Field(0.02, ge=0, lt=1, description="Share of verdicts that may be missing from a score")

    @abstractmethod
    def read_prompts(self) -> tuple[BenchmarkPrompt, ...]: ...

    @abstractmethod
    def read_template(self) -> Template: ...

    @abstractmethod
    def games(self, prompt: BenchmarkPrompt) -> tuple[Game, ...]:
        """What is asked of each answer."""

    @abstractmethod
    def question(
        self, prompt: BenchmarkPrompt, game: Game, answer: tuple[str, ...], template: Template
    ) -> JudgeQuestion: ...

    @abstractmethod
    def read(self, question: JudgeQuestion, reply: JudgeReply) -> JudgeVerdict: ...

    def again(self, question: JudgeQuestion, reply: JudgeReply, template: Template) -> JudgeQuestion | None:
        """The question of one more attempt, where the benchmark has it."""
        return None

    @abstractmethod
    def statistics(self, arms: Mapping[str, JudgedArm]) -> dict[str, dict[str, Statistic]]:
        """The scores of each arm as functions of how often each prompt counts."""

    def notes(self, scores: Mapping[str, BenchmarkScore], statistics: Mapping[str, Statistic]) -> Iterator[str]:
        """What a reader of the scores must know."""
        yield from ()

    def headline(self, scores: Mapping[str, BenchmarkScore]) -> dict[str, BenchmarkScore]:
        """The scores that arms are compared by: one, or one of each category that has a baseline of its own."""
        return {name: score for name, score in scores.items() if name.rpartition("/")[2] == self.main}

    def questions(
        self, prompt: BenchmarkPrompt, answer: tuple[str, ...], template: Template
    ) -> tuple[JudgeQuestion, ...]:
        return tuple(self.question(prompt, game, answer, template) for game in self.games(prompt))

    def scores(
        self, arms: Mapping[str, JudgedArm], *, seed: int = 0, resamples: int = RESAMPLES
    ) -> dict[str, ArmScores]:
        """Each arm's scores with intervals; an error where one lacks more verdicts than max_missing allows."""
        missing = {name: self.missing(arm) for name, arm in arms.items()}
        return self.scores_of(arms, self.statistics(arms), missing, seed=seed, resamples=resamples)

    def scores_of(
        self,
        arms: Mapping[str, JudgedArm],
        statistics_of: Mapping[str, Mapping[str, Statistic]],
        missing: Mapping[str, Mapping[str, int]],
        *,
        seed: int = 0,
        resamples: int = RESAMPLES,
    ) -> dict[str, ArmScores]:
        """Those of statistics that were made already: what they have fitted serves differences too."""
        scored = {}
        for name, statistics in statistics_of.items():
            scores = {key: with_interval(one, seed=seed, resamples=resamples) for key, one in statistics.items()}
            notes = (*self.notes(scores, statistics), *_suspects(arms[name]))
            scored[name] = ArmScores(scores, missing[name], notes)
        return scored

    def missing(self, arm: JudgedArm) -> Mapping[str, int]:
        """Its missing verdicts by reason; an error where they are more than max_missing allows."""
        return missing_verdicts(self.verdicts(arm), self.max_missing)

    def verdicts(self, arm: JudgedArm) -> list[JudgeVerdict]:
        """Those of all games of all prompts, the missing ones among them."""
        return [arm.verdict(item, game) for item, prompt in arm.prompts.items() for game in self.games(prompt)]


def _suspects(arm: JudgedArm) -> Sequence[str]:
    count = sum(any(map(speaks_to_judge, turns)) for turns in arm.answers.values())
    return [f"{count} of {len(arm.answers)} answers speak to the judge; read them"] if count else []
