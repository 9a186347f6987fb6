"""The key of a server: read on the node that asks, sent, and shown to nobody."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn, Protocol, Self

from mixdpo_ray.errors import EndpointError

HIDDEN = "(key)"


class NamesKey(Protocol):
    """Settings that name what holds a key."""

    @property
    def key_variable(self) -> str | None: ...
    @property
    def key_file(self) -> str | None: ...


class EndpointKey:
    """Neither its repr nor a pickle of it tells the key."""

    __slots__ = ("_key",)

    def __init__(self, key: str | None):
        self._key = key

    @classmethod
    def read(cls, settings: NamesKey) -> Self:
        """The key that the settings name, if any."""
        where = f"on {os.uname().nodename}, from where the server is asked"
        if settings.key_variable:
            name, key = f"key_variable {settings.key_variable}", os.environ.get(settings.key_variable, "").strip()
            if not key:
                raise EndpointError(f"{name} is not set {where}: set it before Ray starts there, or give key_file")
        elif settings.key_file:
            name = f"key_file {settings.key_file}"
            try:
                key = Path(settings.key_file).expanduser().read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "no text"
                raise EndpointError(f"{name}: {reason} {where}; correct the name, or give key_variable") from None
        else:
            return cls(None)
        if not (key.isascii() and key.isprintable() and key and " " not in key):
            raise EndpointError(f"{name} {where} holds no key: it must be one word of ASCII letters")
        return cls(key)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self._key is None else {"Authorization": f"Bearer {self._key}"}

    @property
    def token(self) -> str | None:
        """The key for a library that sends it by itself."""
        return self._key

    def hide(self, text: str) -> str:
        """The text without it: servers quote what they were sent."""
        return text if self._key is None else text.replace(self._key, HIDDEN)

    def __repr__(self) -> str:
        return f"EndpointKey({HIDDEN})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key stays in the process that has read it")
