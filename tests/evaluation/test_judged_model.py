"""What a judge who knows the truth says of answers: shares, ratings and deviations, prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

import pytest

from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.evaluation.held_out_answers import HeldOutPrompts, KeyedAnswers
from mixdpo_ray.evaluation.judged_model import (
    PROMPTS,
    AnswerJudging,
    deviation_name,
    judging_identity,
    metrics_in_words,
    own_benchmark,
)
from mixdpo_ray.judges.truth import TruthJudge
from mixdpo_ray.playground.prompts import Prompt, quality
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.metric_names import JUDGED_QUALITY, WIN_RATE
from mixdpo_ray.training.settings import ModelSettings

TEXTS = {"one": "sort d a c", "two": "reverse a b c", "three": "swap a b c d", "four": "double e f g"}
BEFORE = {"one": ("d a c", "a d"), "two": ("c b a", "a"), "three": ("b a d c", "d"), "four": ("e", "f f g g")}
AFTER = {"one": ("a c d", "a c"), "two": ("c b a", "c b"), "three": ("a b c d", "d"), "four": ("e e f f", "f")}


def keyed(answers: Mapping[str, tuple[str, ...]]) -> KeyedAnswers:
    return {(name, draw): text for name, given in answers.items() for draw, text in enumerate(given)}


def judging(texts: Mapping[str, str] = TEXTS) -> AnswerJudging:
    prompts = HeldOutPrompts(
        texts=texts,
        asked=(),
        decoding=DecodingSettings(),
        batch_size=1,
        model=ModelSettings(path="model"),
        gpu=False,
    )
    return AnswerJudging(prompts, keyed(BEFORE), (WIN_RATE, JUDGED_QUALITY))


def true(answers: Mapping[str, tuple[str, ...]], name: str) -> list[float]:
    return [quality(Prompt.of_text(TEXTS[name]), answer) for answer in answers[name]]


def test_each_draw_is_compared_with_the_same_draw_before_and_prompts_are_what_is_counted() -> None:
    judged = judging().judged(keyed(AFTER), TruthJudge())
    shares = {
        name: fmean(0.5 if b == a else float(a > b) for b, a in zip(true(BEFORE, name), true(AFTER, name), strict=True))
        for name in TEXTS
    }
    ratings = [fmean(true(AFTER, name)) for name in TEXTS]
    assert judged.metrics[WIN_RATE] == pytest.approx(fmean(shares.values()))
    assert judged.metrics[deviation_name(WIN_RATE)] == pytest.approx(stdev(shares.values()))
    assert judged.metrics[JUDGED_QUALITY] == pytest.approx(fmean(ratings), abs=1e-5)
    assert judged.metrics[PROMPTS] == 4
    assert judged.metrics["judge/flip_rate"] == 0
    found = judged.prompts.values(WIN_RATE)
    assert found is not None
    assert dict(zip(*found, strict=True)) == shares
    assert metrics_in_words(judged.metrics).endswith("(4 held-out prompts)")


def test_a_model_is_as_good_as_itself_and_nobody_is_asked() -> None:
    judged = judging().judged(keyed(BEFORE), TruthJudge())
    assert judged.metrics[WIN_RATE] == 0.5
    assert judged.metrics[deviation_name(WIN_RATE)] == 0


def test_missing_verdicts_are_no_score() -> None:
    with pytest.raises(EvaluationError, match=r"12 of 16 verdicts are missing.*no_reply"):
        judging(dict.fromkeys(TEXTS, "Tell me a story.")).judged(keyed(AFTER), TruthJudge())


def test_judges_are_told_apart_by_who_is_asked_and_how(tmp_path: Path) -> None:
    """The model of a server that nobody asks says nothing; its parameters, and the recipe's criterion, decide."""
    (tmp_path / "recipe.yaml").write_text("model: {path: m}\ndata: {source: {path: pairs.jsonl}}\n")
    served = "answers.judge.http={model: served, parameters: {reasoning_effort: low}}"
    short = "answers.evaluate.benchmarks={own: {criterion: The shorter one.}}"

    def identity(*settings: str) -> Mapping[str, object]:
        recipe = load_recipe(str(tmp_path / "recipe.yaml"), list(settings))
        return {name: one for name, one in judging_identity(recipe).items() if name in names}

    names = ("engine", "model", "revision", "parameters", "criterion", "chat_template_kwargs")
    here = ("answers.judge.engine=hf", "answers.judge.model=local")
    newer = identity(*here, "answers.judge.revision=v2", "answers.sample.chat_template_kwargs={enable_thinking: false}")
    assert newer == {**identity(*here), "revision": "v2", "chat_template_kwargs": {"enable_thinking": False}}
    assert identity(*here, served) == identity(*here) == {"engine": "hf", "model": "local"}
    asked = {"engine": "http", "model": "served", "parameters": {"reasoning_effort": "low"}}
    assert identity(served) == asked
    assert identity(served, short) == {**asked, "criterion": "The shorter one."}
    assert own_benchmark(load_recipe(str(tmp_path / "recipe.yaml"), [short])).criterion == "The shorter one."
