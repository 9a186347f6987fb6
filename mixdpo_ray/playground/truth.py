"""The judge who knows: what the rule behind a playground says of the answers that a question shows.

It reads the protocols of benchmarks/own.py and benchmarks/single_rating.py: a request and two answers, or one, between
marks that carry a number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from mixdpo_ray.benchmarks.own import Preferred, verdict_mark
from mixdpo_ray.benchmarks.single_rating import HIGHEST, LOWEST, rating_mark
from mixdpo_ray.playground.prompts import OPERATIONS, Prompt, quality

_SHOWN = re.compile(
    r"<request (?P<number>\d+)>\n(?P<request>.*?)\n</request (?P=number)>\s*"
    r"<answer A (?P=number)>\n(?P<first>.*?)\n</answer A (?P=number)>\s*"
    r"<answer B (?P=number)>\n(?P<second>.*?)\n</answer B (?P=number)>",
    re.DOTALL,
)
_SHOWN_ALONE = re.compile(
    r"<request (?P<number>\d+)>\n(?P<request>.*?)\n</request (?P=number)>\s*"
    r"<answer (?P=number)>\n(?P<answer>.*?)\n</answer (?P=number)>",
    re.DOTALL,
)


def truthful_reply(messages: Sequence[Mapping[str, object]]) -> str | None:
    """The verdict in the words that the protocol asks for; None where no prompt of a playground is shown."""
    text = _text(messages)
    if (rated := _SHOWN_ALONE.search(text)) is not None:
        rating, number = _true_rating(rated), rated["number"]
        if rating is None:
            return None
        return rating_mark(number, f"{rating:.6g}") if rating_mark(number, "RATING") in text else f"{rating:.0f}"
    shown = _SHOWN.search(text)
    if shown is None or (share := true_share(shown["request"], shown["first"], shown["second"])) is None:
        return None
    winner: Preferred = "tie" if share == 0.5 else "A" if share else "B"
    return verdict_mark(shown["number"], winner)


def truthful_logps(messages: Sequence[Mapping[str, object]]) -> dict[str, float] | None:
    """Log-probs of the ratings next to the true one, whose expected value it is; None where no rating is asked for."""
    shown = _SHOWN_ALONE.search(_text(messages))
    if shown is None or (rating := _true_rating(shown)) is None:
        return None
    below = max(LOWEST, min(HIGHEST - 1, math.floor(rating)))
    shares = {f"{below}": below + 1 - rating, f"{below + 1}": rating - below}
    return {token: math.log(share) for token, share in shares.items() if share > 0}


def _true_rating(shown: re.Match[str]) -> float | None:
    prompt = playground_prompt(shown["request"])
    return None if prompt is None else quality(prompt, shown["answer"])


def _text(messages: Sequence[Mapping[str, object]]) -> str:
    return "\n".join(str(message["content"]) for message in messages)


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
