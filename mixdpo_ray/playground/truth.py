"""The judge who knows: what the rule behind a playground says of the answers that a question shows.

It reads the protocols of benchmarks/own.py and own_rating.py: a request and two answers, or one, between marks that
carry a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mixdpo_ray.benchmarks.own import Preferred, verdict_mark
from mixdpo_ray.benchmarks.own_rating import own_rating_mark
from mixdpo_ray.playground.prompts import OPERATIONS, Prompt, quality

_SHOWN = re.compile(
    r"<request (?P<number>\d+)>\n(?P<request>.*?)\n</request (?P=number)>\s*"
    r"<answer A (?P=number)>\n(?P<first>.*?)\n</answer A (?P=number)>\s*"
    r"<answer B (?P=number)>\n(?P<second>.*?)\n</answer B (?P=number)>",
    re.DOTALL,
)
_RATED = re.compile(
    r"<request (?P<number>\d+)>\n(?P<request>.*?)\n</request (?P=number)>\s*"
    r"<answer (?P=number)>\n(?P<answer>.*?)\n</answer (?P=number)>",
    re.DOTALL,
)


def truthful_reply(messages: Sequence[Mapping[str, object]]) -> str | None:
    """The verdict in the words that the protocol asks for; None where no prompt of a playground is shown."""
    text = "\n".join(str(message["content"]) for message in messages)
    shown = _SHOWN.search(text) or _RATED.search(text)
    if shown is None or (prompt := playground_prompt(shown["request"])) is None:
        return None
    if shown.re is _RATED:
        return own_rating_mark(shown["number"], quality(prompt, shown["answer"]))
    return verdict_mark(shown["number"], true_winner(prompt, shown["first"], shown["second"]))


def true_winner(prompt: Prompt, first: str, second: str) -> Preferred:
    one, other = quality(prompt, first), quality(prompt, second)
    return "tie" if one == other else "A" if one > other else "B"


def playground_prompt(text: str) -> Prompt | None:
    operation, _, letters = text.partition(" ")
    return Prompt.of_text(text) if operation in OPERATIONS and letters.strip() else None
