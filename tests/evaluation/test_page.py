"""The page of an evaluation holds what the results say, and nothing that an answer holds becomes part of it."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.benchmarks.resampling import BenchmarkScore
from mixdpo_ray.benchmarks.verdict import UNREADABLE
from mixdpo_ray.evaluation.page import evaluation_page
from mixdpo_ray.evaluation.picture import evaluation_picture
from mixdpo_ray.evaluation.results import EvaluatedArm, EvaluatedBenchmark, EvaluationResults
from tests.evaluation.made_results import ATTACKS, alpaca, attacked_example, grades, made_results, pairwise_scores
from tests.search.written_page import WrittenPage


def read(results: EvaluationResults) -> WrittenPage:
    written = WrittenPage()
    written.feed(evaluation_page(results).decode())
    written.close()
    return written


def with_arms(*arms: EvaluatedArm, **changes: Any) -> EvaluationResults:
    return replace(made_results(), benchmarks=(replace(alpaca(), arms=arms, differences=(), **changes),))


def test_a_page_fetches_nothing_and_runs_nothing() -> None:
    written = read(made_results())
    assert written.policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "script" not in written.tags
    links = [one for one in written.references if one != "data:,"]
    assert links
    assert all(one.startswith("#") and one[1:] in written.anchors for one in links)
    assert "url(" not in written.styles
    assert "@import" not in written.styles


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_a_prompt_an_answer_or_a_judge_says_is_shown_as_text_and_changes_nothing_else(attack: str) -> None:
    def pages_with(text: str) -> WrittenPage:
        example = attacked_example()
        verdicts = {
            name: tuple(replace(one, words=one.words and text) for one in found)
            for name, found in example.verdicts.items()
        }
        attacked = replace(
            example,
            item=text,
            category=text,
            turns=(text,),
            reference=(text,),
            answers=dict.fromkeys(example.answers, (text,)),
            verdicts=verdicts,
        )
        arm = EvaluatedArm(text, text, 1, 2, no_score=text, failures={text: 1}, unanswered={text: 1}, notes=(text,))
        named = replace(alpaca(), name=text, references=text, arms=(*alpaca().arms, arm), examples=(attacked,))
        return read(EvaluationResults(text, text, (named,)))

    attacked, harmless = pages_with(attack), pages_with("harmless")
    assert attacked.tags == harmless.tags
    assert attacked.anchors == harmless.anchors
    shown = " ".join(attack.replace("\ud800", "?").replace("\x00", "\ufffd").split())
    assert attacked.words.replace("\x00", "\ufffd").count(shown) == harmless.words.count("harmless")


def test_every_reason_for_a_missing_verdict_is_told_in_words() -> None:
    words = read(made_results()).words
    assert all(f"2 verdicts: {meaning}" in words for meaning in UNREADABLE.values())
    assert f"{2 * len(UNREADABLE)} of 1,610 verdicts are missing" in words
    assert "2 calls to the judge failed: HTTP 400: <b>too long</b>" in words
    assert "2 of 805 prompts have no answer" in words
    assert "3 of 803 answers are empty" in words
    assert "12 of 803 answers were cut at the longest length" in words
    assert "no score: 91 of 1610 verdicts are missing" in words
    assert "1 verdict: the rating lies outside the scale" in words


def test_beside_a_score_stand_its_interval_the_lengths_the_lean_of_the_judge_and_what_so_many_prompts_can_show() -> (
    None
):
    words = read(made_results()).words
    assert "52.6 49.7 to 55.5 2,420 2,050 38.4 21.7 805" in words
    assert "805 prompts show a difference of 3.4 between two arms in 80 of 100 evaluations" in words
    assert "tuned base +6.9 +4.5 to +9.3 ahead" in words
    assert "tuned base +1.5 -0.5 to +3.5 not told apart" in words
    assert "win rate, % 48.2 (44.9 to 51.5) 55.1 (51.8 to 58.4) -" in words
    assert "4 of 803 answers speak to the judge; read them" in words
    assert "calls 4,830 tokens read 5,120,000 tokens written 9,660 price 51.30" in words
    assert "calls 1,210 tokens read 1,280,000 tokens written 2,420 price 12.90 verdicts of earlier jobs 3,620" in words


def test_categories_have_scores_and_lengths_of_their_own() -> None:
    words = read(made_results()).words
    assert "hard_prompt: style-controlled score, %" in words
    assert "base 21.5 18.1 to 24.9 2,100 - 50.2 - 500" in words
    assert "base 25.5 22.1 to 28.9 2,500 - 50.2 - 500" in words
    assert "coding: win rate, % 49.2 (41.2 to 57.2) 56.1 (48.1 to 64.1) -" in words
    assert "writing: rating, 1 to 10 9.50 (9.20 to 9.80)" in words


def test_verdicts_of_an_example_are_put_into_words() -> None:
    words = read(made_results()).words
    assert "base: reference shown first: lost base: reference shown second: lost (0.27 of the win)" in words
    assert "tuned: reference shown first: won tuned: reference shown second: a tie" in words
    assert "dropped: reference shown first: no verdict, the reply ended at its token limit, before a verdict" in words
    assert "tuned: first turn: 9 of 10 tuned: second turn: 7.5 of 10" in words


def test_without_prices_differences_or_anything_at_all_there_is_a_page() -> None:
    words = read(replace(made_results(), benchmarks=(grades(),), currency_known=False)).words
    assert "price" not in words
    assert "80 prompts show a distance of 0.43 from any other value" in words
    assert "Nothing judged" in read(EvaluationResults("none", "nobody", ())).words


def test_a_score_without_a_known_interval_has_a_number_and_no_bar() -> None:
    unknown = BenchmarkScore(50.0, math.nan, math.nan, math.nan, 1)
    results = with_arms(EvaluatedArm("alone", "alone", 1, 2, {"length_controlled_win_rate": unknown}))
    written = read(results)
    assert "alone 50.0 not known" in written.words
    assert written.tags.count("i") == 0
    assert drawn(evaluation_picture(results)) > 0


def drawn(content: bytes) -> int:
    """Pixels of the colour of scores."""
    from matplotlib.image import imread

    pixels: Any = imread(io.BytesIO(content), format="png")[..., :3]
    assert pixels.std() > 0.02
    return int(np.count_nonzero(np.abs(pixels - np.array([0x1B, 0x6C, 0xA8]) / 255).max(-1) < 0.02))


def test_the_picture_draws_every_score_that_there_is() -> None:
    one = EvaluatedArm("tuned", "tuned", 805, 1610, alpaca().arms[1].scores)
    few, more = (
        drawn(evaluation_picture(with_arms(one))),
        drawn(evaluation_picture(with_arms(one, replace(one, name="$other_$")))),
    )
    assert 0 < few < more
    assert drawn(evaluation_picture(made_results())) > more
    assert drawn(evaluation_picture(with_arms(alpaca().arms[2]))) == 0
    assert evaluation_picture(EvaluationResults("none", "nobody", ())).startswith(b"\x89PNG")


def test_what_concerns_all_arms_is_said_once_and_small_numbers_keep_their_digits() -> None:
    arm = EvaluatedArm("one", "one", 5, 10, pairwise_scores(50.0, 8.64), notes=("of both", "of one"))
    other = replace(arm, name="other", notes=("of both",))
    flips = {**arm.scores, "flip_rate": BenchmarkScore(0.0, -1e-17, 6.0, 1.0, 60)}
    words = read(with_arms(replace(arm, scores=flips), other, kind="alpaca")).words
    assert words.count("of both") == 1
    assert "all arms of both one of one" in words
    assert "47.5 44.6 to 50.4 8.6 2,050" in words
    assert "0.0 (0.0 to 6.0)" in words


def test_an_arm_that_lacks_a_benchmarks_score_is_still_named() -> None:
    empty = EvaluatedBenchmark("mine", "own", "win_rate", 5, "", "", (EvaluatedArm("none", "none", 0, 0),))
    assert "none no score: it has no such score" in read(EvaluationResults("a", "b", (empty,))).words
