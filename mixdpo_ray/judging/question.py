"""What a model is asked, and the address of its answer: a hash of exactly what the server is sent.

A judge's request holds its protocol's text, the prompt and both answers in their order, the model's name and all its
settings. So whatever differs in one of them has another address, and what differs in none is the same question.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixdpo_ray.recipe.endpoint import TOKEN_LIMITS, EndpointSettings

RequestBody = dict[str, Any]
BYTES_PER_TOKEN = 4  # of English; an expectation, no bound
TEMPLATE_TOKENS = 256  # what a chat template may add to a question


@dataclass(frozen=True)
class ChatQuestion:
    messages: Sequence[Mapping[str, object]]
    max_tokens: int  # of the answer
    temperature: float = 0.0
    top_logprobs: int = 0  # how many of the likeliest tokens are told with their log-probs
    parameters: Mapping[str, Any] = field(default_factory=dict)  # of this question, such as a seed or stop strings
    draw: int = 0  # the n-th answer to the same words, kept by itself


def request_body(question: ChatQuestion, settings: EndpointSettings) -> RequestBody:
    body = {
        "model": settings.model,
        "messages": [dict(message) for message in question.messages],
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
        **({"logprobs": True, "top_logprobs": question.top_logprobs} if question.top_logprobs else {}),
        **question.parameters,
        **settings.parameters,
    }
    return {name: value for name, value in body.items() if value is not None}


def answer_address(body: RequestBody, draw: int = 0) -> str:
    return hashlib.sha256(json.dumps({"body": body, "draw": draw}, sort_keys=True).encode()).hexdigest()


def most_input_tokens(body: RequestBody) -> int:
    """A bound: no token is shorter than a byte."""
    return _bytes(body) + TEMPLATE_TOKENS


def likely_input_tokens(body: RequestBody) -> int:
    return _bytes(body) // BYTES_PER_TOKEN + 1


def most_output_tokens(body: RequestBody) -> int:
    return max(int(body.get(name) or 0) for name in TOKEN_LIMITS)


def _bytes(body: RequestBody) -> int:
    return sum(len(message["content"].encode("utf-8", "surrogatepass")) for message in body["messages"])
