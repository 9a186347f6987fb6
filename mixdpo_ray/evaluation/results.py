"""What an evaluation came to, as results.json keeps it: tables, pages and pictures are drawn from it alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from pydantic import TypeAdapter

from mixdpo_ray.benchmarks.resampling import BenchmarkScore
from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.intervals import NORMAL
from mixdpo_ray.wording import first_line

EVALUATION_FILE = "results.json"
LM_EVAL_KIND = "lm-eval"  # how the kind of downstream tasks begins, which no judge has seen
POWERFUL = NORMAL + 0.84  # standard errors apart, two scores are told apart in 80 of 100 evaluations


@dataclass(frozen=True)
class EvaluatedArm:
    name: str
    model: str  # whose answers they are: a folder, a Hub name, a file
    answers: int  # prompts that it has answered
    verdicts: int  # that were asked for, the missing ones among them
    scores: Mapping[str, BenchmarkScore] = field(default_factory=dict)  # none where too many verdicts are missing
    no_score: str = ""  # why there is none
    missing: Mapping[str, int] = field(default_factory=dict)  # verdicts by reason (benchmarks/verdict.py, UNREADABLE)
    failures: Mapping[str, int] = field(default_factory=dict)  # calls that gave no reply, by what the server said
    unanswered: Mapping[str, int] = field(default_factory=dict)  # prompts that the model gave no answer to, by reason
    empty: int = 0  # answers without a word
    cut: int = 0  # answers that ended at the longest length
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArmDifference:
    """One arm's score minus another's, prompt by prompt."""

    arm: str
    against: str
    score: str  # its name
    apart: BenchmarkScore


@dataclass(frozen=True)
class ExampleVerdict:
    game: str  # baseline_first, model_first, turn_1, turn_2
    value: float | None  # of two answers the model's share of the win, of one its rating; None: missing
    reason: str = ""  # why it is missing
    words: str = ""  # of the judge


@dataclass(frozen=True)
class JudgedExample:
    """A prompt, what every arm answered, and what the judge said of it."""

    item: str
    category: str
    turns: tuple[str, ...]  # of the user
    reference: tuple[str, ...]  # the answers that those of the arms are compared with, if any
    answers: Mapping[str, tuple[str, ...]]  # of each arm, by turn
    verdicts: Mapping[str, tuple[ExampleVerdict, ...]]  # of each arm


@dataclass(frozen=True)
class JudgingCost:
    """What verdicts took: tokens as the judge's server counts them, where it does."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    price: float = 0.0  # in the currency of answers.judge.http.prices; 0 where they are not given

    def __add__(self, other: JudgingCost) -> JudgingCost:
        ours, theirs = asdict(self), asdict(other)
        return JudgingCost(**{name: ours[name] + theirs[name] for name in ours})


@dataclass(frozen=True)
class EvaluatedBenchmark:
    name: str
    kind: str  # the key of BENCHMARKS
    main: str  # the score that arms are compared by; of several categories: CATEGORY/main
    prompts: int
    references: str  # whose answers those of the arms are compared with; "" where none are
    against: str  # the arm that differences are taken from; "" where there is one arm alone
    arms: tuple[EvaluatedArm, ...]
    differences: tuple[ArmDifference, ...] = ()
    cost: JudgingCost = JudgingCost()  # of all its verdicts, whoever paid them
    examples: tuple[JudgedExample, ...] = ()

    @property
    def headlines(self) -> tuple[str, ...]:
        """Names of the scores that arms are compared by: one, or one of each category."""
        names = dict.fromkeys(name for arm in self.arms for name in arm.scores)
        return tuple(name for name in names if name.rpartition("/")[2] == self.main)


@dataclass(frozen=True)
class EvaluationResults:
    name: str
    judge: str
    benchmarks: tuple[EvaluatedBenchmark, ...]
    spent: JudgingCost = JudgingCost()  # by this job
    cached: int = 0  # verdicts of earlier jobs, which cost this one nothing
    currency_known: bool = False  # whether prices were given

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, content: bytes, path: str = EVALUATION_FILE) -> Self:
        try:
            read = TypeAdapter(cls).validate_python(json.loads(content))
        except ValueError as error:
            raise EvaluationError(
                f"{path}: no results of an evaluation ({first_line(error)}); repeat jobs/evaluate.py"
            ) from None
        return read


def smallest_shown(score: BenchmarkScore) -> float:
    """The distance from it that so many prompts would show in 80 of 100 evaluations."""
    error = score.error or (score.high - score.low) / (2 * NORMAL)  # alike on every prompt is still not certain
    return POWERFUL * error
