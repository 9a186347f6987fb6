"""Three data sets of the UltraFeedback family: binarised by others, rated by a reward model, and raw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixdpo_ray.pairs.pair import Candidate, Found, Row, user
from mixdpo_ray.pairs.pairing import Answers, PairSettings, paired
from mixdpo_ray.pairs.ratings import RatedAnswer, overall_score


def ultrafeedback_binarized(row: Row) -> Found:
    return [
        Candidate(
            chosen=row.get("chosen"),
            rejected=row.get("rejected"),
            source="ultrafeedback_binarized",
            score_chosen=row.get("score_chosen"),
            score_rejected=row.get("score_rejected"),
            scale=(1, 10),
        )
    ]


def simpo_ultrafeedback(row: Row) -> Found:
    """Scores are looked up by text: the best and the worst of all_rm_scores are not always the pair's."""
    answers = simpo_answers(row)
    if isinstance(answers, str):
        return [answers]
    score_of = {answer.text: answer.score for answer in answers.rated if isinstance(answer.text, str)}
    chosen, rejected = row.get("chosen"), row.get("rejected")
    return [
        Candidate(
            chosen=chosen,
            rejected=rejected,
            source="simpo_ultrafeedback",
            score_chosen=score_of.get(_last_text(chosen)),
            score_rejected=score_of.get(_last_text(rejected)),
        )
    ]


def simpo_answers(row: Row) -> Answers | str:
    answers, scores = row.get("all_generated_responses"), row.get("all_rm_scores")
    if not isinstance(answers, list) or not isinstance(scores, list) or len(answers) != len(scores):
        return "malformed_row"
    chosen = row.get("chosen")
    prompt = chosen[:-1] if isinstance(chosen, list) and len(chosen) > 1 else [user(row.get("prompt"))]
    return Answers(prompt, [RatedAnswer(*both) for both in zip(answers, scores, strict=True)], "simpo_ultrafeedback")


def _last_text(conversation: Any) -> str:
    last = conversation[-1] if isinstance(conversation, list) and conversation else None
    content = last.get("content") if isinstance(last, Mapping) else None
    return content if isinstance(content, str) else ""


def ultrafeedback(row: Row) -> Found:
    """Binarised here: the best overall score against a random other answer; the source's score-10 bug is undone."""
    return [paired(ultrafeedback_answers(row), PairSettings())]


def ultrafeedback_answers(row: Row) -> Answers | str:
    completions = row.get("completions")
    if not isinstance(completions, list) or not all(isinstance(completion, Mapping) for completion in completions):
        return "malformed_row"
    rated = [RatedAnswer(completion.get("response"), overall_score(completion)) for completion in completions]
    return Answers([user(row.get("instruction"))], rated, "ultrafeedback", scale=(1, 10))
