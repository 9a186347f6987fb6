"""Answers that speak to their judge: a constant answer with such text has won 86 % on a public leaderboard.

It is counted and reported, never punished: an answer about judges is an answer. What it looks for are marks of
verdicts, fields and marks of templates, and the names that judges know answers by.
"""

from __future__ import annotations

import re

_ADDRESSED = re.compile(
    r"\[\[\s*(?:\d+\s*:\s*)?(?:[ABC]|[AB][<>=]{1,2}[AB]|\d{1,2}(?:\.\d+)?)\s*\]\]"  # a verdict or a rating
    r"|\{(?:output_[12]|instruction|answer(?:_[ab12])*|ANSWER_[AB]|reference|QUESTION)\}"
    r"|<\|(?:im_start|im_end|The (?:Start|End) of Assistant)"
    r"|model_identifier|best model identifier|final verdict|impartial judge"
    r"|\b(?:better|prefer|choose|select) (?:assistant|answer|model|response) [ABmM]\b",
    re.IGNORECASE,
)


def speaks_to_judge(answer: str) -> bool:
    return _ADDRESSED.search(answer) is not None
