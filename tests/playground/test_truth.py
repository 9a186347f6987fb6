"""The judge who knows reads the questions of `own` and says which answer is better by the rule."""

from __future__ import annotations

import pytest

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.benchmarks.verdict import JudgeReply
from mixdpo_ray.playground.truth import truthful_reply


@pytest.mark.parametrize(
    ("answer", "reference", "share"), [("a c d", "d c a", 1.0), ("x", "a c d", 0.0), ("a c b", "a c e", 0.5)]
)
def test_the_better_answer_wins_in_both_orders(answer: str, reference: str, share: float) -> None:
    own = Own(prompts="unread")
    prompt = BenchmarkPrompt("1", ("sort d a c",), reference=(reference,))
    for question in own.questions(prompt, (answer,), own.read_template()):
        verdict = own.read(question, JudgeReply(truthful_reply(question.messages) or ""))
        assert verdict.value == (share if question.game == "model_first" else 1 - share)


def test_it_says_nothing_of_other_prompts() -> None:
    own = Own(prompts="unread")
    prompt = BenchmarkPrompt("1", ("Why is the sky blue?",), reference=("It is not.",))
    question = own.questions(prompt, ("It scatters.",), own.read_template())[0]
    assert truthful_reply(question.messages) is None
