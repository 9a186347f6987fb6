"""What pydantic finds wrong with a value, in words for people who have never heard of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from pydantic_core import ErrorDetails

from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.wording import what_was_meant

IN_WORDS: Mapping[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "give a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "give a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "give true or false"),
    "finite_number": "give a number that is finite",
    "string_type": "give a text",
    **dict.fromkeys(("tuple_type", "list_type"), "give a list, in [brackets]"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"), "give settings, {{key: value}}"
    ),
    "is_instance_of": "give settings, {{key: value}}",
    "greater_than": "give more than {gt:g}",
    "greater_than_equal": "give {ge:g} or more",
    "less_than": "give less than {lt:g}",
    "less_than_equal": "give {le:g} or less",
    "literal_error": "choose {expected}",
    "too_short": "give {min_length} or more of them",
    "too_long": "give {max_length} or fewer of them",
}
BRANCHES = ("int", "float", "str", "bool")  # a plain kind among those that a setting may have
OF_SETTINGS = (TokenBudget.__name__,)  # a kind that has settings, beside a plain one


def in_words(details: ErrorDetails) -> str:
    """What to give instead; what a setting of ours says itself stays as it is."""
    words = IN_WORDS.get(details["type"])
    if words is None:
        return details["msg"].removeprefix("Value error, ")
    return words.format_map(details.get("ctx", {}))


def choice_meant(errors: Iterable[ErrorDetails]) -> str:
    """A question for the choice that a misspelt value nearly is; nothing where none comes close."""
    choices: list[str] = []
    given = ""
    for details in errors:
        given = str(details["input"])
        if details["type"] == "literal_error":
            choices += re.findall(r"'([^']*)'", details["ctx"]["expected"])
        elif details["type"] == "bool_parsing":
            choices += ["true", "false", "on", "off"]
    return what_was_meant(given, choices)


def setting_of(details: ErrorDetails) -> tuple[str, ...]:
    """The names that lead to a value in the recipe, without the name of the kind that it was tried as."""
    parts = [str(part) for part in details["loc"] if part not in OF_SETTINGS]
    named = [part for part in parts if not part.startswith(("function-", "lax-", "is-instance", "constrained-"))]
    named = [
        part for part in named if not (part.endswith("]") and part.partition("[")[0] in ("tuple", "dict", "literal"))
    ]
    return tuple(named[:-1] if len(named) > 1 and named[-1] in BRANCHES else named)


def grouped(errors: Sequence[ErrorDetails]) -> dict[tuple[str, ...], list[ErrorDetails]]:
    """The errors of each setting, together where it may be of several kinds; of those the one that fits best."""
    found: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for details in errors:
        found.setdefault(setting_of(details), []).append(details)
    deeper = {setting[:length] for setting in found for length in range(len(setting))}
    return {setting: details for setting, details in found.items() if setting not in deeper}
