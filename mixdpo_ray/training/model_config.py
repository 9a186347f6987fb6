"""What a model's configuration says, read from its file: nothing heavy is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def known_config(name: str, revision: str | None) -> Mapping[str, Any]:
    """The content of config.json, of a text model inside another one that one's; nothing where it is not here."""
    file = Path(name) / "config.json"
    cached = file if file.is_file() else _cached(name, revision)
    if cached is None:
        return {}
    try:
        config = json.loads(cached.read_bytes())
    except ValueError:
        return {}  # whoever loads the model says what is wrong with it
    if not isinstance(config, dict):
        return {}
    inner = config.get("text_config")
    outer = {name: value for name, value in config.items() if value is not None}
    return {**(inner if isinstance(inner, dict) else {}), **outer}


def configured(name: str, revision: str | None, *settings: str) -> int | None:
    """The first of these settings that is a number above 0; None where the configuration is not here or is silent."""
    config = known_config(name, revision)
    return next((value for one in settings if isinstance(value := config.get(one), int) and value), None)


def _cached(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:  # a path, and no name
        return None
    return Path(found) if isinstance(found, str) else None
