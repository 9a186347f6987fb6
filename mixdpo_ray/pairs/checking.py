"""Every pair is kept or refused with a reason; what a policy changes is noted. Nothing else happens to a pair here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mixdpo_ray.pairs.pair import Candidate, Pair
from mixdpo_ray.pairs.ratings import is_number
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.pairs.template_inputs import template_inputs
from mixdpo_ray.pairs.turns import check_turns

SEVERAL_RATERS = "several_raters"  # among the notes

REASONS: dict[str, str] = {
    # the source
    "corrupt_file": "the file, or a part of it, cannot be read",
    "corrupt_line": "the line is not one JSON object in valid UTF-8",
    "malformed_row": "the row's columns do not hold what its format has there",
    "oversized_row": "the row's text takes more than data.source.max_row_bytes",
    "too_few_rated_answers": "fewer than two answers to the prompt have a usable rating",
    "all_answers_equal": "all answers to the prompt are the same text",
    "all_scores_tie": "no answer to the prompt is rated above another",
    "raters_disagree": "the raters do not agree which of its answers are the best and the worst",
    "undecided_tie": "the annotators prefer neither answer, so none is the chosen one",
    # the turns
    "bad_turns": "turns are not texts of (system,) user, assistant, user, ... ending with an assistant",
    "empty_prompt": "a turn of the prompt has no text",
    "empty_answer": "an answer has no text",
    "identical_answers": "chosen and rejected are the same text, or the same tokens",
    "answers_differ_before_last_turn": "the two conversations differ before their answers",
    "malformed_tools": "tools is no list of functions with names, or no JSON of one",
    "malformed_template_kwargs": "chat_template_kwargs is no table of settings, or no JSON of one",
    "several_turns": "an answer has several turns, and raters read one text",
    "lone_surrogate": "a text holds half of a surrogate pair, which no UTF-8 can hold",
    # the ratings
    "missing_score": "a rating is missing (data.missing_score)",
    "nan_score": "a rating is not a number: NaN (data.missing_score)",
    "infinite_score": "a rating is infinite",
    "bad_score": "a rating is not a number but text or something else",
    "negative_margin": "chosen is rated below rejected (data.negative_margin)",
    "unknown_scale": "data.margin_scale needs the rating scale of this row's source, which is not known",
    "no_ratings_to_state": "data.pair.augment states the ratings of both answers, and the row lacks one",
    "tie_not_augmented": "data.pair.augment would make a tie two copies that contradict each other",
    # the tokens
    "control_token": "a text contains one of the tokenizer's special tokens",
    "template_refuses_turns": "the chat template does not accept these turns, or leaves calls of tools out",
    "template_changes_prompt": "the chat template renders the prompt differently once an answer follows",
    "turns_not_separable": "the chat template, or the tokens, of an answer's turns change once further ones follow",
    "no_assistant_tokens": "the chat template marks no token of an answer as the assistant's",
    "prompt_too_long": "the prompt has more than data.max_prompt_length tokens (data.truncation)",
    "answer_too_long": "prompt and answer have more than data.max_length tokens (data.truncation)",
    "answer_truncated_to_nothing": "the prompt alone fills data.max_length",
    "answers_equal_after_truncation": "what data.max_length leaves of both answers is the same",
    # the whole
    "duplicate_pair": "the same prompt and answers were read before",
    "prompt_in_heldout": "the prompt is also in the held-out split",
    "not_selected": "nothing is wrong with it: data.select left it out",
    "left_out_by_weight": "nothing is wrong with it: its source's weight in data.source.mix keeps a share of the pairs",
    "curated_away": "its ratings are wrong, or its raters disagree, as far as data.curate can tell",
    "sft_is_full": "nothing is wrong with it: data.sft.fraction or max_rows of the others are taken",
    "heldout_is_full": "nothing is wrong with it: data.heldout.max_pairs others are held out",
}

# reasons that a policy can make fatal: such a row stops the job
FATAL: dict[str, tuple[str, str]] = {
    "missing_score": ("missing_score", "error"),
    "nan_score": ("missing_score", "error"),
    "negative_margin": ("negative_margin", "error"),
    "prompt_too_long": ("truncation", "raise"),
    "answer_too_long": ("truncation", "raise"),
}


def is_fatal(reason: str, data: DataSettings) -> bool:
    setting, value = FATAL.get(reason, ("", ""))
    return bool(setting) and getattr(data, setting) == value


def check_pair(candidate: Candidate, data: DataSettings) -> Pair | str:
    """The pair, or the reason why it is none. data.margin_scale auto must have been resolved."""
    template = template_inputs(*candidate.template)
    if isinstance(template, str):
        return template
    turns = check_turns(candidate, template, data.max_row_bytes)
    if isinstance(turns, str):
        return turns
    margin = _margin(candidate, data)
    if isinstance(margin, str):
        return margin
    pair = Pair(
        prompt=turns.prompt,
        chosen=turns.chosen[-1]["content"],
        rejected=turns.rejected[-1]["content"],
        answers=None if turns.plain else (turns.chosen, turns.rejected),
        template=template,
        margin=margin,
        source=candidate.source,
        score_chosen=_float(candidate.score_chosen),
        score_rejected=_float(candidate.score_rejected),
        rater_margins=(several := _rater_margins(*candidate.ratings)),
        notes=(SEVERAL_RATERS,) if several else (),
    )
    if math.isnan(margin):
        return replace(pair, margin=0.0, notes=(*pair.notes, "missing_score_made_hard"))
    return _not_negative(pair, data)


def _rater_margins(chosen: Any, rejected: Any) -> tuple[float, ...]:
    """What each of several raters says of a pair; nothing where there are fewer than two of them."""
    if not isinstance(chosen, Mapping) or not isinstance(rejected, Mapping):
        return ()
    names = sorted({*chosen, *rejected})
    if len(names) < 2:
        return ()
    return tuple(_float(chosen.get(name)) - _float(rejected.get(name)) for name in names)


def _margin(candidate: Candidate, data: DataSettings) -> float | str:
    """A pair's margin on the scale that data asks for; NaN where a missing rating is to make the pair hard."""
    scores = (candidate.score_chosen, candidate.score_rejected)
    ratings = scores if candidate.margin is None else (candidate.margin, 0.0)
    for rating in ratings:
        reason = _rating_reason(rating)
        if reason in ("missing_score", "nan_score") and data.missing_score == "hard":
            return math.nan
        if reason:
            return reason
    width = _scale_width(candidate, data)
    if width is None:
        return "unknown_scale"
    margin = (float(ratings[0]) - float(ratings[1])) / width
    return margin if math.isfinite(margin) else "infinite_score"


def _rating_reason(rating: Any) -> str:
    if rating is None:
        return "missing_score"
    if isinstance(rating, bool) or not isinstance(rating, int | float):
        return "bad_score"
    if rating != rating:
        return "nan_score"
    return "" if is_number(rating) else "infinite_score"


def _scale_width(candidate: Candidate, data: DataSettings) -> float | None:
    """What a margin is divided by. Quantiles need all margins: pairs/scaling.py computes them when they are known."""
    if isinstance(data.margin_scale, dict):
        return data.margin_scale.get(candidate.source)
    if data.margin_scale == "range":
        return candidate.scale[1] - candidate.scale[0] if candidate.scale else None
    assert data.margin_scale != "auto", "margin_scale auto is resolved by scaling.resolve_scale"
    return 1.0


def _not_negative(pair: Pair, data: DataSettings) -> Pair | str:
    if pair.margin >= 0:
        return pair
    if data.negative_margin == "swap":
        return replace(
            pair.exchanged,
            margin=-pair.margin,
            rater_margins=tuple(-margin for margin in pair.rater_margins),
            notes=(*pair.notes, "swapped"),
        )
    if data.negative_margin == "hard":
        return replace(pair, margin=0.0, notes=(*pair.notes, "negative_margin_made_hard"))
    return "negative_margin"


def _float(rating: Any) -> float:
    return float(rating) if not _rating_reason(rating) else math.nan
