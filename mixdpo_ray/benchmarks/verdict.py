"""What a judge said and what was read in it, and the law that missing verdicts are counted and never made up.

A verdict is read from the judge's own words (or log-probs) alone. One that cannot be read has a reason and no value,
so that no arithmetic turns it into a win, a loss or a tie; above a stated share of missing ones there is no score at
all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from mixdpo_ray.errors import EvaluationError

UNREADABLE: dict[str, str] = {
    "no_answer": "the model gave no answer to judge",
    "no_reply": "the judge was not asked yet, or the call failed",
    "no_log_probs": "the judge's server sent no log-probs",
    "no_identifier": "neither answer's identifier is among the log-probs",
    "no_rating": "the reply does not begin with one of the ratings",
    "no_mark": "the reply holds no mark of a verdict",
    "cut_off": "the reply ended at its token limit, before a verdict",
    "marks_disagree": "the reply holds several verdicts that differ",
    "unknown_mark": "the mark names no verdict that the benchmark knows",
    "out_of_range": "the rating lies outside the scale",
}


@dataclass(frozen=True)
class JudgeReply:
    """What came back from a judge: its words, never those it was asked with."""

    text: str
    logps: Mapping[str, float] | None = None  # of the likeliest first tokens
    cut_off: bool = False  # it ended at the token limit


@dataclass(frozen=True)
class JudgeVerdict:
    """The share of the win that the answer shown first gets of two; the rating of a single answer."""

    value: float | None
    battles: int = 1  # how many it counts for
    reason: str | None = None  # a key of UNREADABLE where there is no value

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None) or (self.value is not None and not math.isfinite(self.value)):
            raise ValueError(f"a verdict has a finite value or a reason: {self.value}, {self.reason}")

    @classmethod
    def unreadable(cls, reason: str) -> Self:
        return cls(None, reason=reason)


def mark_missing(reply: JudgeReply) -> JudgeVerdict:
    """The verdict of a reply in which no mark was found: a judge that reasons for too long is not one that forgets."""
    return JudgeVerdict.unreadable("cut_off" if reply.cut_off else "no_mark")


def missing_verdicts(verdicts: Iterable[JudgeVerdict], allowed: float) -> Mapping[str, int]:
    """The number of missing ones by reason; an error where they are more than the allowed share."""
    every = list(verdicts)
    reasons = Counter(verdict.reason for verdict in every if verdict.reason)
    missing = sum(reasons.values())
    if missing == len(every) or missing > allowed * len(every):
        told = ", ".join(f"{count} {reason} ({UNREADABLE[reason]})" for reason, count in reasons.most_common())
        raise EvaluationError(
            f"{missing} of {len(every)} verdicts are missing, more than max_missing allows ({allowed:g}): "
            f"{told or 'nothing was judged'}; repeat the job to ask for them again, or look at what the judge replied"
        )
    return dict(sorted(reasons.items()))
