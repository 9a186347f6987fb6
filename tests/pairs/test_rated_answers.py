"""Rated answers become the pair of their best and their worst one, or what a rule asks for."""

from __future__ import annotations

from typing import Any

import pytest

from mixdpo_ray.pairs.columns import find_format
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.pair import Candidate
from mixdpo_ray.pairs.pairing import PairSettings
from tests.pairs.samples import QUESTION, data

SCORES = {"a b c d": 9.0, "a b c e": 7.0, "a b c d e f g h": 4.0, "w x y z v u t s": 2.0}


def row(**scores: Any) -> dict[str, Any]:
    rated = scores or SCORES
    return {"prompt": QUESTION, "answers": [{"text": text, "score": score} for text, score in rated.items()]}


def pair(one: dict[str, Any], **settings: Any) -> tuple[str, str] | str:
    (found,) = FORMATS["rated_answers"].pairs([one], PairSettings(**settings))
    if not isinstance(found, Candidate):
        return found
    return found.chosen[-1]["content"], found.rejected[-1]["content"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("a b c d", "w x y z v u t s")),
        ({"rule": "max_max"}, ("a b c d", "a b c e")),
        ({"rule": "margin_controlled", "margins": (4.0,)}, ("a b c d", "a b c d e f g h")),
        ({"rule": "dcrm"}, ("a b c d", "a b c e")),  # (tanh(1) / 2) / 2 is the most for its difference
    ],
)
def test_every_rule_chooses_among_them(settings: dict[str, Any], expected: tuple[str, str]) -> None:
    assert pair(row(), **settings) == expected


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([("a", 1.0), ("a ", 5.0)], "all_answers_equal"),
        ([("a", 3.0), ("b", 3.0), ("c", 3.0)], "all_scores_tie"),
        ([("a", 3.0), ("b", None), ("c", 3.0)], "all_scores_tie"),
        ([("a", 3.0), ("b", None)], "too_few_rated_answers"),
        ([("a", 3.0)], "too_few_rated_answers"),
        ([], "too_few_rated_answers"),
    ],
)
@pytest.mark.parametrize("rule", [None, "dcrm", "max_random"])
def test_answers_that_are_equal_or_tie_are_no_pair_under_any_rule(
    answers: list[tuple[str, Any]], reason: str, rule: str | None
) -> None:
    one = {"prompt": QUESTION, "answers": [{"text": text, "score": score} for text, score in answers]}
    assert pair(one, rule=rule) == reason


def test_an_equal_text_counts_once_with_its_first_rating() -> None:
    one = {
        "prompt": QUESTION,
        "answers": [{"text": text, "score": score} for text, score in (("a", 5), ("b", 3), ("a", 1))],
    }
    assert pair(one) == ("a", "b")


def test_the_format_is_known_by_its_columns() -> None:
    assert find_format(data(), ["prompt_id", "prompt", "answers"]) == "rated_answers"
