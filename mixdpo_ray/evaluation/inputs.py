"""What an evaluation needs, read and checked before anything is sampled or paid for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mixdpo_ray.benchmarks.alpaca_eval_2 import AlpacaEval2
from mixdpo_ray.benchmarks.arena_hard import ArenaHard
from mixdpo_ray.benchmarks.benchmark import Benchmark
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.errors import EndpointError, EvaluationError, RecipeError, StorageError
from mixdpo_ray.evaluation.answers import AnswerRows, ArmSampler, answers_in_file, decoding_of, known_rows
from mixdpo_ray.evaluation.arms import EvaluationArm, arms_of_evaluation
from mixdpo_ray.evaluation.prompts import BenchmarkPrompts, is_held_out, read_benchmark
from mixdpo_ray.evaluation.scored import ArmAnswers, ComparedWith
from mixdpo_ray.judging.key import EndpointKey
from mixdpo_ray.recipe.recipe import Recipe


@dataclass
class EvaluationInputs:
    recipe: Recipe
    arms: tuple[EvaluationArm, ...]
    prompts: dict[str, BenchmarkPrompts]  # held-out ones are there when Ray is
    samplers: dict[str, ArmSampler] = field(default_factory=dict)

    @classmethod
    def read(cls, recipe: Recipe, *, asks: bool = True) -> EvaluationInputs:
        """Raise what is wrong with the judge, the arms and the benchmarks' files. Whoever asks needs a key."""
        _check_judge(recipe, asks)
        arms, benchmarks = arms_of_evaluation(recipe), recipe.answers.evaluate.benchmarks
        prompts = {}
        for name, benchmark in benchmarks.items():
            if is_held_out(benchmark) and not recipe.data.holds_out:
                raise RecipeError("data.heldout holds out no pairs, and own.prompts names no file: give one of them")
            if not is_held_out(benchmark):
                with _of_benchmark(name):
                    prompts[name] = read_benchmark(recipe, name, benchmark)
        inputs = cls(recipe, arms, prompts)
        for name, found in prompts.items():
            inputs._check_references(name, found)
        return inputs

    @property
    def needs_ray(self) -> bool:
        return len(self.prompts) < len(self.benchmarks)

    @property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        return self.recipe.answers.evaluate.benchmarks

    def read_held_out(self) -> None:
        """The prompts that the recipe's own pairs hold out. Ray is connected."""
        for name, benchmark in self.benchmarks.items():
            if name not in self.prompts:
                self.prompts[name] = read_benchmark(self.recipe, name, benchmark)
                self._check_references(name, self.prompts[name])

    def sampler(self, arm: EvaluationArm) -> ArmSampler:
        if arm.name not in self.samplers:
            self.samplers[arm.name] = ArmSampler(self.recipe, arm)
        return self.samplers[arm.name]

    def check_arms(self) -> None:
        """Read the files of answers; of models load the tokenizers."""
        for name, prompts in self.prompts.items():
            for arm in sorted(self.arms, key=lambda arm: arm.file(name) is None):
                if arm.file(name) is not None:
                    self.answers(name, arm, known_rows)
                else:
                    self.sampler(arm).engine(decoding_of(self.recipe, name, prompts.prompts[0]))

    def answers(self, name: str, arm: EvaluationArm, rows: AnswerRows) -> ArmAnswers:
        path, prompts = arm.file(name), self.prompts[name]
        if path is None:
            return self.sampler(arm).answers(prompts, rows)
        with _of_benchmark(f"{name}, arm {arm.name}"):
            return answers_in_file(arm, path, prompts)

    def compared(
        self, name: str, answers: Mapping[str, ArmAnswers]
    ) -> tuple[BenchmarkPrompts, dict[str, ArmAnswers], ComparedWith]:
        """The prompts with what answers are compared with, the arms that are judged, and against which of them."""
        prompts, asked = self.prompts[name], self.recipe.answers.evaluate
        beside, judged = self._reference_arm(name, prompts), dict(answers)
        if beside is not None:
            prompts = prompts.against(judged.pop(beside).texts)
            if not prompts.prompts:
                raise EvaluationError(f"{name}: {beside} gave no answer that others could be compared with")
        against = asked.against if asked.against in judged else next(iter(judged))
        compared = ComparedWith(beside or _references_of(self.benchmarks[name]), against if len(judged) > 1 else "")
        return prompts, judged, compared

    def _reference_arm(self, name: str, prompts: BenchmarkPrompts) -> str | None:
        """The arm whose answers are those to compare with; None where the benchmark has its own."""
        if not isinstance(self.benchmarks[name], Own):
            return None
        asked = self.recipe.answers.evaluate.against
        return asked or (self.arms[0].name if prompts.lack_references else None)

    def _check_references(self, name: str, prompts: BenchmarkPrompts) -> None:
        if len(self.arms) == 1 and self._reference_arm(name, prompts) is not None:
            raise RecipeError(
                f"answers.evaluate.arms names {self.arms[0].name!r} alone, and not every prompt of {name} has a "
                "reference: add them, or an arm to compare with"
            )


def _references_of(benchmark: Benchmark) -> str:
    if isinstance(benchmark, ArenaHard):
        return " and ".join(type(benchmark).baselines.values())
    return {AlpacaEval2: "its baseline", Own: "its file"}.get(type(benchmark), "")


def _check_judge(recipe: Recipe, asks: bool) -> None:
    judge = recipe.answers.judge
    if judge is None:
        raise RecipeError("answers.judge: the recipe names none; give {engine: http, http: {url: ..., model: ...}}")
    odd = [name for name, one in recipe.answers.evaluate.benchmarks.items() if not isinstance(one, Own)]
    if judge.engine == "playground" and odd:
        raise RecipeError(f"answers.judge.engine playground judges own alone, and not {odd[0]}: name another judge")
    if asks and judge.http is not None and judge.engine == "http":
        try:
            EndpointKey.read(judge.http)
        except EndpointError as error:
            raise EndpointError(f"answers.judge.http.{error}") from None


@contextmanager
def _of_benchmark(name: str) -> Iterator[None]:
    try:
        yield
    except (EvaluationError, StorageError) as error:
        raise type(error)(f"{name}: {error}") from None
