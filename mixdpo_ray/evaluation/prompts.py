"""The prompts of a benchmark, and the conversations that a model is shown for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mixdpo_ray.benchmarks.benchmark import Benchmark, BenchmarkPrompt
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.evaluation.judged import AnswerTexts
from mixdpo_ray.evaluation.scored import evenly_spread
from mixdpo_ray.pairs.pair import Message, prompt_hash
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import prompts_of_pairs


@dataclass(frozen=True)
class BenchmarkPrompts:
    benchmark: str
    prompts: tuple[BenchmarkPrompt, ...]  # that are asked
    every: tuple[BenchmarkPrompt, ...]  # that the benchmark has
    before: Mapping[str, tuple[Message, ...]] = field(
        default_factory=dict
    )  # by item, where a prompt is more than a text

    def conversation(self, prompt: BenchmarkPrompt, answers: Sequence[str]) -> tuple[Message, ...]:
        """What a model is shown for its next answer, behind those that it gave."""
        first = self.before.get(prompt.item) or (Message(role="user", content=prompt.turns[0]),)
        later: list[Message] = []
        for answer, turn in zip(answers, prompt.turns[1:], strict=False):
            later += (Message(role="assistant", content=answer), Message(role="user", content=turn))
        return (*first, *later)

    def against(self, answers: AnswerTexts) -> BenchmarkPrompts:
        """The same with an arm's answers as the references; prompts that it gave none to are left out."""
        kept = [replace(prompt, reference=answers[prompt.item]) for prompt in self.prompts if prompt.item in answers]
        return replace(self, prompts=tuple(kept))

    @property
    def lack_references(self) -> bool:
        return not all(prompt.reference for prompt in self.prompts)


def is_held_out(benchmark: Benchmark) -> bool:
    """Whether its prompts are those of the recipe's own held-out pairs, for which Ray is needed."""
    return isinstance(benchmark, Own) and benchmark.prompts is None


def read_benchmark(recipe: Recipe, name: str, benchmark: Benchmark) -> BenchmarkPrompts:
    """Its prompts, and whether its other files can be read."""
    benchmark.read_template()
    most = recipe.answers.evaluate.most
    if not is_held_out(benchmark):
        every = benchmark.read_prompts()
        return BenchmarkPrompts(name, tuple(evenly_spread(every, most)), every)
    asked = recipe.answers.sample.prompts.model_copy(
        update={"source": None, "split": "heldout", "skip": 0, "most": None}
    )
    sample = recipe.answers.sample.model_copy(update={"prompts": asked})
    answers = recipe.answers.model_copy(update={"sample": sample})
    held_out = prompts_of_pairs(recipe.model_copy(update={"answers": answers}))
    if not held_out:
        raise EvaluationError("data.heldout holds out no pairs, and own.prompts names no file: give one of them")
    before = {prompt_hash(prompt.messages): prompt.messages for prompt in held_out}
    prompts = [BenchmarkPrompt(item, (_as_text(messages),)) for item, messages in before.items()]
    return BenchmarkPrompts(name, tuple(evenly_spread(prompts, most)), tuple(prompts), before)


def _as_text(messages: Sequence[Message]) -> str:
    """What a judge is shown of a conversation: a single turn as it is, several with who spoke."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
