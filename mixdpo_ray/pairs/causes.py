"""Why rows were refused, in sentences: what each reason means, one value that is at fault, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

from mixdpo_ray.errors import MixDPOError
from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.pairs.formats import map_columns
from mixdpo_ray.pairs.pair import Row
from mixdpo_ray.pairs.ratings import is_number
from mixdpo_ray.pairs.reading import read_rows

_RATED_BY = ("margin", "score_chosen", "score_rejected", "chosen_rating", "rejected_rating")
_TURNS = ("prompt", "chosen", "rejected")
_KEPT_AS_HARD = "jobs/rate.py rates them, and data.missing_score=hard keeps such pairs, as hard ones"
_LONGER = "or cut them by data.truncation=truncate"
_REMEDIES: Mapping[str, str] = {
    "missing_score": _KEPT_AS_HARD,
    "nan_score": _KEPT_AS_HARD,
    "too_few_rated_answers": "jobs/rate.py rates answers",
    "bad_score": "write numbers without quotes, or name columns of them",
    "bad_turns": "look at data.source.columns",
    "malformed_row": "look at data.source.columns",
    "negative_margin": "are the columns of the two answers the wrong way round?",
    "prompt_in_heldout": "leave such prompts out of one of the two sources",
    "prompt_too_long": f"raise data.max_prompt_length, {_LONGER}",
    "answer_too_long": f"raise data.max_length, {_LONGER}",
    "template_refuses_turns": "look at the tokenizer's chat template, or set model.chat_template",
}
_WITH_A_VALUE = ("bad_score", "bad_turns")  # reasons of which a value is shown
_MOST_REASONS = 4
_MOST_ROWS = 100_000  # of a file that is read again for one of its values


def causes_text(
    refusals: Sequence[Refusal], row_of: Callable[[Refusal], Row | None], columns: Mapping[str, str]
) -> str:
    """The reasons by number, each in a sentence and with a value of the first row that was refused for it."""
    faults = {}
    for refusal in refusals:
        if refusal.reason not in faults:
            row = row_of(refusal) if refusal.reason in _WITH_A_VALUE else None
            faults[refusal.reason] = "" if row is None else fault_in(refusal.reason, row, columns)
    return reasons_text(Counter(refusal.reason for refusal in refusals), faults)


def reasons_text(counts: Mapping[str, int], faults: Mapping[str, str] | None = None) -> str:
    """The most frequent reasons, with what each means and what to do."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    said = {reason: reason_text(reason, (faults or {}).get(reason, "")) for reason, _ in ordered[:_MOST_REASONS]}
    parts = [f"{counts[reason]} {reason} ({text})" for reason, text in said.items()]
    rest = sum(count for _, count in ordered[_MOST_REASONS:])
    return ", ".join([*parts, *([f"{rest} for other reasons"] if rest else [])])


def reason_text(reason: str, fault: str = "") -> str:
    """What a reason means, where it is so, and what to do about it."""
    remedy = _REMEDIES.get(reason, "")
    return f"{REASONS[reason]}{fault and f', as in {fault}'}{remedy and f': {remedy}'}"


def fault_in(reason: str, row: Row, columns: Mapping[str, str]) -> str:
    """The values of a row that a reason is about, by the source's own columns; nothing where they are not plain."""
    if reason not in _WITH_A_VALUE:
        return ""
    ours = map_columns(dict(row), columns)
    if reason == "bad_score":
        odd = {name: ours[name] for name in _RATED_BY if ours.get(name) is not None and not is_number(ours[name])}
        return ", ".join(f"{columns.get(name, name)} {value!r:.40}" for name, value in odd.items())
    named = [name for name in _TURNS if name in ours]
    return ", ".join(f"{columns.get(name, name)} {_kind(ours[name])}" for name in named)


def _kind(turns: Any) -> str:
    """What stands where texts or turns should, without what anybody wrote."""
    if isinstance(turns, str):
        return "a text"
    if isinstance(turns, list) and all(isinstance(turn, Mapping) for turn in turns):
        return f"turns of {', '.join(str(turn.get('role')) for turn in turns[:6]) or 'nobody'}"
    return {type(None): "nothing", list: "a list", dict: "a mapping"}.get(type(turns), f"{turns!r:.40}")


def row_read_again(refusal: Refusal, max_row_bytes: int) -> Row | None:
    """The row that was refused; nothing where it is not among the first of a file."""
    if refusal.row >= _MOST_ROWS:
        return None
    try:
        rows = islice(read_rows(refusal.file, max_row_bytes), _MOST_ROWS)
        return next((raw.value for raw in rows if raw.row == refusal.row), None)
    except MixDPOError:  # of a data set without files
        return None
