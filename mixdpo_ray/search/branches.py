"""What a person is told of ranges that exist under one value of another setting alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mixdpo_ray.recipe.ranges import Choice, read_range


def example_of_branches(space: Mapping[str, Any], above: str, setting: str) -> str:
    """How a range is written under a value of the setting above it, in the person's own names; else empty."""
    choice = read_range(above, space[above]) if above in space else None
    if setting not in space or not isinstance(choice, Choice):
        return ""
    first, *others = map(_text, choice.options)
    branches = [f"{first}: {{{setting}: {_text(space[setting])}}}", *(f"{other}: {{}}" for other in others)]
    return f", such as {above}: {{choice: {{{', '.join(branches)}}}}}"


def told_of_equal_trials(space: Mapping[str, Any]) -> str | None:
    """That some trials of a search will be the same training, if so: nothing varies beside a value of a choice."""
    if len(space) != 1:
        return None
    ((setting, written),) = space.items()
    choice = read_range(setting, written)
    alone = [option for option, inner in choice.branches.items() if not inner] if isinstance(choice, Choice) else []
    if not alone:
        return None
    named = " or ".join(f"{setting}={option}" for option in alone)
    return (
        f"tune.space: nothing varies under {named}, so trials with it repeat one training: give it a range, "
        "or leave it out"
    )


def _text(value: Any) -> str:
    """A value in YAML's braces."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_text(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
