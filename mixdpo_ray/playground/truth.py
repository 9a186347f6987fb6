"""The judge who knows: what the rule behind a playground says of the answers that a question shows.

It reads the protocol of benchmarks/own.py: a request and two answers between marks that carry a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mixdpo_ray.benchmarks.own import Preferred, verdict_mark
from mixdpo_ray.playground.prompts import OPERATIONS, Prompt, quality

_SHOWN = re.compile(
    r"<request (?P<number>\d+)>\n(?P<request>.*?)\n</request (?P=number)>\s*"
    r"<answer A (?P=number)>\n(?P<first>.*?)\n</answer A (?P=number)>\s*"
    r"<answer B (?P=number)>\n(?P<second>.*?)\n</answer B (?P=number)>",
    re.DOTALL,
)


def truthful_reply(messages: Sequence[Mapping[str, object]]) -> str | None:
    """The verdict in the words that the protocol asks for; None where no prompt of a playground is shown."""
    shown = _SHOWN.search("\n".join(str(message["content"]) for message in messages))
    if shown is None or (share := true_share(shown["request"], shown["first"], shown["second"])) is None:
        return None
    winner: Preferred = "tie" if share == 0.5 else "A" if share else "B"
    return verdict_mark(shown["number"], winner)


def true_share(request: str, first: str, second: str) -> float | None:
    """The share of the win that the first answer deserves: 1, 1/2 or 0."""
    prompt = playground_prompt(request)
    if prompt is None:
        return None
    one, other = quality(prompt, first), quality(prompt, second)
    return 0.5 if one == other else float(one > other)


def playground_prompt(text: str) -> Prompt | None:
    operation, _, letters = text.partition(" ")
    return Prompt.of_text(text) if operation in OPERATIONS and letters.strip() else None
