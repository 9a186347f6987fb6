"""What scores are called, and how they are written: in tables, on pages and in pictures."""

from __future__ import annotations

import math

from mixdpo_ray.benchmarks.resampling import BenchmarkScore

SCORE_WORDS: dict[str, str] = {
    "win_rate": "win rate, %",
    "length_controlled_win_rate": "length-controlled win rate, %",
    "discrete_win_rate": "win rate, each prompt won or lost, %",
    "score": "score, %",
    "style_controlled_score": "style-controlled score, %",
    "style_controlled_score_centred": "style-controlled score, at the mean style, %",
    "rating": "rating, 1 to 10",
    "first_turn": "rating of the first turn",
    "second_turn": "rating of the second turn",
    "first_shown_share": "won by the answer shown first, %",
    "flip_rate": "verdicts that flip with the order, %",
    "acc": "accuracy, %",
    "acc_norm": "accuracy by likelihood per character, %",
    "exact_match": "exact match, %",
    "agreed_win_rate": "win rate where both orders agree, %",
    "average_length": "length of the answers, characters",
    "baseline_length": "length of the reference's, characters",
}
_HALF = ("win_rate", "length_controlled_win_rate", "discrete_win_rate", "score", "style_controlled_score")
_RATINGS = ("rating", "first_turn", "second_turn")
LENGTH_SCORES = ("average_length", "baseline_length")


def score_parts(name: str, main: str) -> tuple[str, str]:
    """Category and plain name: of hard/score, of win_rate:coding, and of writing, the main score of that category."""
    plain, colon, category = name.partition(":")
    if colon:
        return category, plain
    category, _, plain = name.rpartition("/")
    return (name, main) if main == "rating" and plain not in SCORE_WORDS else (category, plain)


def score_of_category(category: str, plain: str) -> str:
    return f"{category}/{plain}" if category else plain


def score_title(name: str, main: str) -> str:
    category, plain = score_parts(name, main)
    return f"{category}: {SCORE_WORDS.get(plain, plain)}" if category else SCORE_WORDS.get(plain, plain)


def score_value(value: float, plain: str, *, signed: bool = False) -> str:
    """The number with as many digits as matter; nothing is written as -0.0."""
    digits = 2 if plain in _RATINGS else 0 if plain in LENGTH_SCORES and abs(value) >= 100 else 1
    return f"{round(value, digits) + 0.0:{'+' if signed else ''},.{digits}f}"


def interval_words(score: BenchmarkScore, plain: str, *, signed: bool = False) -> str:
    if not (math.isfinite(score.low) and math.isfinite(score.high)):
        return "not known"
    low, high = (score_value(end, plain, signed=signed) for end in (score.low, score.high))
    return f"{low} to {high}"


def even_score(plain: str) -> float | None:
    """What two equal arms have; None where a score has no such middle."""
    return 50.0 if plain in _HALF else None
