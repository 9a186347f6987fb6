"""Judge templates: filled once, field by field, so that what stands in an answer changes nothing but its own text.

Filling in two steps, or with str.format where an answer was put in before, lets an answer that holds `{output_2}` or
the marks between messages rewrite the question. Braces that are no field of the template stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mixdpo_ray.errors import EvaluationError

JudgeMessage = dict[str, str]  # role and content
_MESSAGE = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>", re.DOTALL)


def filled(template: str, fields: Mapping[str, str]) -> str:
    """The template with every field replaced, in one pass over the template's own text."""
    known = re.compile("{(" + "|".join(map(re.escape, fields)) + ")}")
    return known.sub(lambda found: fields[found[1]], template)


def filled_messages(messages: Sequence[JudgeMessage], fields: Mapping[str, str]) -> tuple[JudgeMessage, ...]:
    return tuple({"role": one["role"], "content": filled(one["content"], fields)} for one in messages)


def messages_of(text: str, path: str) -> tuple[JudgeMessage, ...]:
    """The messages of a template in ChatML, which is split before any answer is in it."""
    messages = tuple({"role": role, "content": content.strip()} for role, content in _MESSAGE.findall(text))
    if not messages:
        raise EvaluationError(f"{path}: no message between <|im_start|> and <|im_end|>; give the judge's own template")
    return messages


def require_fields(template: str, names: Sequence[str], path: str) -> None:
    """Refuse a template that would never show the judge one of the texts."""
    absent = [name for name in names if "{" + name + "}" not in template]
    if absent:
        raise EvaluationError(f"{path}: the template lacks {', '.join(f'{{{name}}}' for name in absent)}; add it")
