"""What a row hands to the chat template beside its turns: tools that may be called, and settings of the template.

Both may stand in a source as they are or as JSON. Parquet gives every row of a column the same keys and fills the gaps
with nulls, which nobody wrote: they are taken out again, unless they stand in JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

RESERVED = {  # arguments of apply_chat_template that are no row's business
    *("add_generation_prompt", "chat_template", "continue_final_message", "conversation", "messages", "tokenize"),
    *("return_assistant_tokens_mask", "return_dict", "return_tensors", "tools"),
}


@dataclass(frozen=True)
class TemplateInputs:
    tools: str = ""  # JSON of a list; none where it is empty
    settings: str = ""  # JSON of a mapping

    def __bool__(self) -> bool:
        return bool(self.tools or self.settings)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of apply_chat_template."""
        if not self:
            return {}
        tools = {"tools": parsed(self.tools)} if self.tools else {}
        return {**tools, **(parsed(self.settings) if self.settings else {})}

    @property
    def columns(self) -> dict[str, str]:
        """The columns of a row, as JSON, which every kind of file keeps; none where there is nothing to say."""
        columns = {"tools": self.tools, "chat_template_kwargs": self.settings}
        return {name: value for name, value in columns.items() if value}


NO_INPUTS = TemplateInputs()


def template_inputs(tools: Any, settings: Any) -> TemplateInputs | str:
    """The inputs, or a reason of checking.REASONS."""
    listed, named = _json_of(tools, _are_tools), _json_of(settings, _are_settings)
    if listed is None:
        return "malformed_tools"
    if named is None:
        return "malformed_template_kwargs"
    try:
        (listed + named).encode()
    except UnicodeEncodeError:
        return "lone_surrogate"
    return TemplateInputs(listed, named) if listed or named else NO_INPUTS


def given(value: Any) -> Any:
    """A value or its JSON, without the nulls that parquet fills in."""
    if isinstance(value, str):
        return json.loads(value) if value.strip() else None
    return without_nulls(value)


def without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: without_nulls(one) for name, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list | tuple) else value


@lru_cache(1024)
def parsed(text: str) -> Any:
    return json.loads(text)


def _json_of(value: Any, right: Callable[[Any], bool]) -> str | None:
    """The value as JSON, nothing where it is empty; None where it is not what it should be."""
    if value is None:
        return ""
    try:
        read = given(value)
        if not read:
            return ""
        return json.dumps(read, ensure_ascii=False) if right(read) else None
    except (TypeError, ValueError, RecursionError):
        return None


def _are_tools(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_tool, value))


def _is_tool(tool: Any) -> bool:
    """A function by its name, by itself or in the envelope of OpenAI's API."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    return isinstance(function, Mapping) and isinstance(function.get("name"), str) and bool(function["name"])


def _are_settings(value: Any) -> bool:
    return isinstance(value, dict) and not RESERVED.intersection(value)
