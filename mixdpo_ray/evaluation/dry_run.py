"""What an evaluation would draw, ask and cost, told before any of it: answers that are not there yet are assumed.

An assumed answer is as long as it may be, at four bytes a token, and no two are alike, so that what is told is a bound
for everything but second attempts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mixdpo_ray.errors import MixDPOError
from mixdpo_ray.evaluation.answers import AnswerRow, decoding_of, known_rows
from mixdpo_ray.evaluation.arms import EvaluationArm
from mixdpo_ray.evaluation.downstream import refuse_impossible_tasks, tasks_in_words
from mixdpo_ray.evaluation.inputs import EvaluationInputs
from mixdpo_ray.evaluation.judged import chat_question, games_of
from mixdpo_ray.evaluation.prompts import BenchmarkPrompts
from mixdpo_ray.evaluation.scored import ArmAnswers
from mixdpo_ray.judging.estimate import AskingEstimate, estimate
from mixdpo_ray.judging.question import BYTES_PER_TOKEN, ChatQuestion
from mixdpo_ray.judging.reply_store import ReplyStore, reply_folder
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.engine import Engine
from mixdpo_ray.sampling.prompts import AskedPrompt


@dataclass(frozen=True)
class BenchmarkEstimate:
    name: str
    prompts: int
    arms: int
    answers: int
    assumed: int  # answers that are to be drawn
    tokens: int  # of those, at most
    questions: int

    def describe(self) -> str:
        return (
            f"{self.name}: {self.prompts:,} prompts, {self.arms} arms; {self.answers:,} answers, of which "
            f"{self.answers - self.assumed:,} are there and {self.assumed:,} to be drawn (at most {self.tokens:,} "
            f"tokens); {self.questions:,} questions to the judge"
        )


@dataclass(frozen=True)
class EvaluationEstimate:
    benchmarks: tuple[BenchmarkEstimate, ...]
    judge: str
    asking: AskingEstimate | None  # None: of a judge that costs nothing
    warnings: tuple[str, ...]
    tasks: str = ""  # downstream ones, which no judge sees

    def describe(self) -> str:
        lines = [one.describe() for one in self.benchmarks]
        if self.asking is None:
            lines.append(f"judge: {self.judge}, at no price")
        else:
            lines += [f"judge: {line}" for line in self.asking.describe().splitlines()]
            if not self.asking.seconds and self.asking.cost.calls:
                lines.append("judge: for a time, give answers.judge.http.requests_per_minute or tokens_per_minute")
        lines += filter(None, [self.tasks])
        warnings = [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([*warnings, *lines, "dry run: nothing was drawn, asked or paid"])


def estimate_evaluation(inputs: EvaluationInputs) -> EvaluationEstimate:
    """Calls, tokens and price, told without Ray; held-out prompts are read already."""
    found, questions, warnings = [], list[ChatQuestion](), list[str]()
    for name, benchmark in inputs.benchmarks.items():
        assumed = _Assumed()
        answers = {arm.name: _expected(inputs, name, arm, assumed, warnings) for arm in inputs.arms}
        prompts, judged, _ = inputs.compared(name, answers)
        texts = {arm: one.texts for arm, one in judged.items()}
        games = games_of(benchmark, prompts.prompts, texts).values()
        asked = [chat_question(benchmark, question) for question in games if question.settled is None]
        questions += asked
        turns = sum(len(texts) for one in answers.values() for texts in one.texts.values())
        found.append(
            BenchmarkEstimate(
                name, len(prompts.prompts), len(answers), turns, assumed.count, assumed.tokens, len(asked)
            )
        )
    tasks = tasks_in_words(inputs.recipe, inputs.arms)
    try:
        refuse_impossible_tasks(inputs.recipe)
    except MixDPOError as error:
        warnings.append(str(error))
    judge, asking = _asking(inputs.recipe, questions)
    return EvaluationEstimate(tuple(found), judge, asking, tuple(dict.fromkeys(warnings)), tasks)


@dataclass
class _Assumed:
    """Answers that are there, and made-up ones for the others."""

    count: int = 0
    tokens: int = 0
    arm: str = ""

    def rows(self, recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> dict[str, AnswerRow]:
        known = known_rows(recipe, engine, prompts)
        longest = recipe.answers.sample.decoding.max_new_tokens
        made = {one.prompt_id: self.row(one.prompt_id, longest) for one in prompts if one.prompt_id not in known}
        return {**known, **made}

    def row(self, key: str, longest: int) -> AnswerRow:
        return {"answer": self.text(key, longest), "finish": "stop"}

    def text(self, key: str, longest: int) -> str:
        self.count += 1
        self.tokens += longest
        return f"{self.arm} {key} ".ljust(BYTES_PER_TOKEN * longest, "x")


def _expected(
    inputs: EvaluationInputs, name: str, arm: EvaluationArm, assumed: _Assumed, warnings: list[str]
) -> ArmAnswers:
    assumed.arm = arm.name
    if arm.file(name) is not None:
        return inputs.answers(name, arm, assumed.rows)
    before = (assumed.count, assumed.tokens)
    try:
        return inputs.answers(name, arm, assumed.rows)
    except (MixDPOError, OSError) as error:
        assumed.count, assumed.tokens = before
        warnings.append(f"arm {arm.name}: {error}; its answers are assumed")
        return ArmAnswers(
            arm.model or inputs.recipe.model.path, _all_assumed(inputs.recipe, inputs.prompts[name], assumed)
        )


def _all_assumed(recipe: Recipe, prompts: BenchmarkPrompts, assumed: _Assumed) -> Mapping[str, tuple[str, ...]]:
    def texts() -> Iterator[tuple[str, tuple[str, ...]]]:
        for prompt in prompts.prompts:
            longest = decoding_of(recipe, prompts.benchmark, prompt).max_new_tokens
            yield (
                prompt.item,
                tuple(assumed.text(f"{prompt.item} {turn}", longest) for turn in range(len(prompt.turns))),
            )

    return dict(texts())


def _asking(recipe: Recipe, questions: Sequence[ChatQuestion]) -> tuple[str, AskingEstimate | None]:
    judge = recipe.answers.judge
    assert judge is not None, "inputs.py refuses a recipe without a judge"
    if judge.engine != "http" or judge.http is None:
        return judge.model or "the playground's true quality", None
    store = ReplyStore(reply_folder(recipe.output.storage_path, judge.http.model))
    return judge.http.model, estimate(questions, judge.http, store)
