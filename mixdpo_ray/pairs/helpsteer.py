"""The three data sets of the HelpSteer family: rated responses, and two kinds of signed preferences."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mixdpo_ray.pairs.pair import Candidate, Found, Row, answered, user
from mixdpo_ray.pairs.pairing import Answers, PairSettings, paired
from mixdpo_ray.pairs.ratings import RatedAnswer, is_number


def helpsteer2(*rows: Row) -> Found:
    """Each row is one rated response; the rows of one prompt make a pair, by helpfulness."""
    return [paired(helpsteer2_answers(*rows), PairSettings())]


def helpsteer2_answers(*rows: Row) -> Answers:
    prompt = _helpsteer2_turns(rows[0].get("prompt"))
    rated = [RatedAnswer(row.get("response"), row.get("helpfulness")) for row in rows]
    return Answers(prompt, rated, "helpsteer2", scale=(0, 4))


def helpsteer2_preference(row: Row) -> Found:
    strength = row.get("preference_strength")
    prompt = _helpsteer2_turns(row.get("prompt"))
    first, second = row.get("response_1"), row.get("response_2")
    return [_preferred(prompt, first, second, strength, tie_break=0, source="helpsteer2_preference")]


def _helpsteer2_turns(prompt: Any) -> list[Any]:
    """Later turns of a prompt are marked inside its text: <extra_id_1>Assistant, <extra_id_1>User."""
    if not isinstance(prompt, str):
        return [user(prompt)]
    first, *rest = re.split(r"\n*<extra_id_1>(User|Assistant)\n", prompt)
    return [user(first), *({"role": rest[i].lower(), "content": rest[i + 1]} for i in range(0, len(rest), 2))]


def helpsteer3_preference(row: Row) -> Found:
    """A tie overall is decided by the sum of the annotators' scores; its margin stays 0."""
    votes = row.get("individual_preference")
    scores = [vote.get("score") for vote in votes if isinstance(vote, Mapping)] if isinstance(votes, list) else []
    return [
        _preferred(
            row.get("context"),
            row.get("response1"),
            row.get("response2"),
            row.get("overall_preference"),
            tie_break=sum(score for score in scores if is_number(score)),
            source="helpsteer3_preference",
        )
    ]


def _preferred(prompt: Any, first: Any, second: Any, preference: Any, tie_break: float, source: str) -> Candidate | str:
    """Negative prefers the first answer, positive the second; the size is the margin."""
    if not is_number(preference):
        return "missing_score"
    direction = preference or tie_break
    if direction == 0:
        return "undecided_tie"
    chosen, rejected = (first, second) if direction < 0 else (second, first)
    return Candidate(answered(prompt, chosen), answered(prompt, rejected), source, margin=abs(preference), scale=(0, 3))
