"""Answers to a prompt and their ratings, as jobs/rate.py writes them: the best against the worst, unless a rule is set.

Equal texts are one answer. Where all answers are the same, or none is rated above another, there is no pair to learn
from, and whoever picks a best and a worst one all the same picks by chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixdpo_ray.pairs.pair import Found, Row
from mixdpo_ray.pairs.pairing import Answers, PairSettings, paired
from mixdpo_ray.pairs.ratings import RatedAnswer, is_number


def rated_answers(row: Row) -> Found:
    return [paired(answers_with_ratings(row), PairSettings(rule="max_min"))]


def answers_with_ratings(row: Row) -> Answers | str:
    answers, prompt = row.get("answers"), row.get("prompt")
    if not isinstance(answers, list) or not all(isinstance(answer, Mapping) for answer in answers):
        return "malformed_row"
    different = different_answers(answers)
    if reason := why_no_pair(len(answers), [answer.score for answer in different]):
        return reason
    source = row.get("source")
    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    template = (row.get("tools"), row.get("chat_template_kwargs"))
    return Answers(turns, different, source if isinstance(source, str) else "rated_answers", template=template)


def different_answers(answers: list[Mapping[str, Any]]) -> list[RatedAnswer]:
    found: dict[str, RatedAnswer] = {}
    for answer in answers:
        text = answer.get("text")
        if isinstance(text, str):
            found.setdefault(text.strip(), RatedAnswer(text, answer.get("score"), answer.get("ratings")))
    return list(found.values())


def why_no_pair(drawn: int, scores: list[Any]) -> str:
    """The reason of checking.REASONS; nothing where a pair can be made. `scores`: those of the different answers."""
    if drawn > 1 and len(scores) == 1:
        return "all_answers_equal"
    rated = [score for score in scores if is_number(score)]
    if len(rated) < 2:
        return "too_few_rated_answers"
    return "all_scores_tie" if len(set(rated)) == 1 else ""
