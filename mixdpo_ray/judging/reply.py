"""What a model answered, or why there is no answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

LikeliestTokens = tuple[str, Mapping[str, float]]  # a token of the answer, and the likeliest in its stead


@dataclass(frozen=True)
class ChatReply:
    text: str = ""
    finish: str = ""  # stop: by itself; length: at the limit of tokens
    tokens: tuple[LikeliestTokens, ...] = ()  # where log-probs were asked for
    model: str = ""  # as the server names it
    input_tokens: int | None = None  # where the server counts them
    output_tokens: int | None = None
    failure: str = ""  # why there is no answer; asked again by the next job

    @property
    def cut_off(self) -> bool:
        return self.finish == "length"

    @property
    def first_logps(self) -> Mapping[str, float] | None:
        """The likeliest first tokens; None where the server sent none."""
        return self.tokens[0][1] if self.tokens else None

    @classmethod
    def failed(cls, reason: str) -> Self:
        return cls(failure=reason)

    def to_row(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in ("", None, ())}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        tokens = tuple((token, logps) for token, logps in row.get("tokens", ()))
        return cls(**{**row, "tokens": tokens})


def read_reply(content: object) -> ChatReply | None:
    """The reply in a server's JSON; None where it holds none."""
    try:
        choice = content["choices"][0]  # type: ignore[index]
        usage, text = content.get("usage") or {}, choice["message"].get("content")  # type: ignore[attr-defined]
        return ChatReply(
            text=text if isinstance(text, str) else "",
            finish=str(choice.get("finish_reason") or ""),
            tokens=tuple(map(_token, (choice.get("logprobs") or {}).get("content") or ())),
            model=str(content.get("model") or ""),  # type: ignore[attr-defined]
            input_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError):
        return None


def _token(one: Mapping[str, Any]) -> LikeliestTokens:
    likeliest: dict[str, float] = {}
    for other in one.get("top_logprobs") or ():
        if math.isfinite(other["logprob"]):
            likeliest.setdefault(other["token"], float(other["logprob"]))
    return str(one["token"]), likeliest


def _count(tokens: object) -> int | None:
    return tokens if isinstance(tokens, int) and tokens >= 0 else None
