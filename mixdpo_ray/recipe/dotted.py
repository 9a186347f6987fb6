"""Settings by their dotted names, in the tree of sections that a recipe file is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def set_dotted(tree: dict[str, Any], setting: str, value: object) -> None:
    """Put a value where the name says; sections that are not there are made."""
    *parents, last = setting.split(".")
    for parent in parents:
        if not isinstance(tree.get(parent), dict):
            tree[parent] = {}
        tree = tree[parent]
    tree[last] = value


def get_dotted(tree: Mapping[str, Any], setting: str) -> Any:
    """The value there; None where there is none."""
    value: Any = tree
    for key in setting.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
