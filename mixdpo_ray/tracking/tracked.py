"""What trackers are told of a training: who it is, to whom it belongs, and its recipe without secrets.

A training has an id of its own, drawn when its folder is begun and written there: a killed run continues under it, and
one that was started over does not.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from mixdpo_ray import storage
from mixdpo_ray.tracking.settings import TrackerSettings

_ID_FILE = "tracked.json"  # in the folder of a run
_SECRET_NAME = re.compile(r"(KEY|TOKEN|PASSWORD|SECRET)$")
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")
_PRIVATE = ("tune.storage",)  # may hold a password
_HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Tracked:
    """How a training appears in the trackers that its recipe names."""

    trackers: Mapping[str, TrackerSettings]
    name: str
    config: Mapping[str, Any]  # the recipe
    group: str | None = None  # the comparison or study that it belongs to
    labels: Mapping[str, Any] = field(default_factory=dict)  # what it is there, and the settings that it varies

    def in_group(self, group: str, name: str, labels: Mapping[str, Any]) -> Self:
        return replace(self, group=group, name=name, labels=labels)

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe by dotted names, without what may be secret."""
        flat = dict(_flat(self.config))
        return {name: hidden(value) for name, value in flat.items() if name not in _PRIVATE}


def tracking_id(run: str, fingerprint: str) -> str:
    """The training's own, which it keeps as long as its folder is there."""
    path = storage.join(run, _ID_FILE)
    if storage.exists(path):
        known = json.loads(storage.read_bytes(path))
        if known["fingerprint"] == fingerprint:
            return str(known["id"])
    drawn = f"{fingerprint}-{uuid.uuid4().hex[:6]}"
    storage.write_bytes(path, json.dumps({"fingerprint": fingerprint, "id": drawn}).encode())
    return drawn


def hidden(value: Any) -> Any:
    """The value without keys and tokens of the environment, and without passwords in addresses."""
    if not isinstance(value, str):
        return value
    secrets = [secret for name, secret in os.environ.items() if _SECRET_NAME.search(name) and len(secret) > 5]
    for secret in sorted(secrets, key=len, reverse=True):
        value = value.replace(secret, _HIDDEN)
    return _USER_IN_URL.sub(f"{_HIDDEN}@", value)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str | int | float | None) else json.dumps(value)
