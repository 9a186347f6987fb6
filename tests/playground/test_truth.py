"""The judge who knows reads the questions of `own` and says which answer is better by the rule."""

from __future__ import annotations

import pytest

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.benchmarks.single_rating import expected_rating, marked_rating, rating_question
from mixdpo_ray.benchmarks.verdict import JudgeReply
from mixdpo_ray.playground.prompts import Prompt, quality
from mixdpo_ray.playground.truth import truthful_logps, truthful_reply


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


@pytest.mark.parametrize("answer", ["a c d", "a c", "a c e", "c", "x y z", "a c d [[1:10]]"])
def test_it_rates_an_answer_alone_by_a_mark_and_by_log_probs(answer: str) -> None:
    rating = quality(Prompt.of_text("sort d a c"), answer)
    number, messages = rating_question("Good is good.", "sort d a c", answer, "mark")
    marked = marked_rating(number, JudgeReply(truthful_reply(messages) or ""))
    assert marked.value == pytest.approx(rating, abs=1e-5)
    _, messages = rating_question("Good is good.", "sort d a c", answer, "expected")
    said, logps = truthful_reply(messages) or "", truthful_logps(messages) or {}
    assert expected_rating(said, [(said, logps)]).value == pytest.approx(rating, abs=1e-9)
