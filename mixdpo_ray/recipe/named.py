"""Sections whose keys name what they set, as {name: {its settings}, ...}: each is read by the class of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import did_you_mean

_Kinds = Mapping[str, type[Settings]]
_Validator = Callable[[object], object]


def with_names(table: _Kinds, what: str, example: str) -> _Validator:
    """A validator of the whole section, which tells each part its own name."""

    def named(value: object) -> object:
        if not isinstance(value, Mapping):
            raise ValueError(f"write {{{what}: {{its settings}}, ...}}, such as {example}")
        for name in value:
            if name not in table:
                raise ValueError(f"unknown {what} {name!r}; {did_you_mean(str(name), table)}")
        return {name: given if isinstance(given, Settings) else (name, given) for name, given in value.items()}

    return named


def named_alone(value: object) -> object:
    """A list of names as a section whose parts have no settings; anything else as it is."""
    names = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return dict.fromkeys(value) if isinstance(value, list) and names else value


def of_its_name(table: _Kinds) -> _Validator:
    """A validator of a part that was told its name."""

    def picked(value: object) -> object:
        if isinstance(value, Settings):
            return value
        assert isinstance(value, tuple)
        name, given = value
        return table[name].model_validate({} if given is None else given)

    return picked
