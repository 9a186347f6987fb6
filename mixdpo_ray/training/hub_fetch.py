"""Whole models from the Hugging Face Hub into this machine's cache, once for all processes that will load them.

The Hub answers 429 where many ask at once, and says how long to wait. Only what transformers would load is fetched.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

FetchedPart = Literal["model", "tokenizer", "adapter"]
_WEIGHTS = "*.safetensors"
FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.py", _WEIGHTS)  # at the top level of a repository
OLDER_WEIGHTS = "*.bin"  # where there is nothing else
TRIES, LONGEST_WAIT = 6, 300.0  # seconds
WERE_FETCHED = "MIXDPO_RAY_MODELS_WERE_FETCHED"  # set for workers: what is whole in the cache is taken as it is


def fetch(name: str, revision: str | None = None, part: FetchedPart = "model") -> Path:
    """The folder in the cache of a model with its weights and tokenizer, of a tokenizer alone, or of an adapter."""
    if part != "model":
        return _small_part(name, revision, part)
    if folder := whole_snapshot(name, revision):
        return folder
    folder = Path(_patiently(name, revision, FILES))
    if not has_weights(folder):
        folder = Path(_patiently(name, revision, (*FILES, OLDER_WEIGHTS)))
    return folder


def _small_part(name: str, revision: str | None, part: FetchedPart) -> Path:
    from huggingface_hub import try_to_load_from_cache

    known = try_to_load_from_cache(name, f"{part}_config.json", revision=revision)
    if isinstance(known, str):
        return Path(known).parent
    files = FILES if part == "adapter" else tuple(kind for kind in FILES if kind != _WEIGHTS)
    return Path(_patiently(name, revision, files))


def whole_snapshot(name: str, revision: str | None = None) -> Path | None:
    """The folder in the cache where nothing is missing that a worker loads."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(name, file, revision=revision) for file in ("config.json", "tokenizer_config.json")]
    if not all(isinstance(file, str) for file in found):
        return None
    folder = Path(str(found[0])).parent
    return folder if has_weights(folder) else None


def has_weights(folder: Path) -> bool:
    for single in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{single}.index.json"
        if index.is_file():
            shards = set(json.loads(index.read_text())["weight_map"].values())
            return all((folder / shard).is_file() for shard in shards)
        if (folder / single).is_file():
            return True
    return False


def already_fetched(name: str, revision: str | None) -> bool:
    """Whether this process was told that models are fetched, and has this one."""
    return WERE_FETCHED in os.environ and whole_snapshot(name, revision) is not None


def _patiently(name: str, revision: str | None, files: tuple[str, ...]) -> str:
    from huggingface_hub import snapshot_download

    for attempt in range(TRIES):
        try:
            return snapshot_download(name, revision=revision, allow_patterns=list(files), ignore_patterns=["*/*"])
        except Exception as error:  # what the Hub answered is wrapped up where nothing is cached
            wait = seconds_to_wait(_response(error), attempt)
            if wait is None or attempt == TRIES - 1:
                raise
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _response(error: BaseException | None) -> Any:
    while error is not None and getattr(error, "response", None) is None:
        error = error.__cause__
    return getattr(error, "response", None)


def seconds_to_wait(response: Any, attempt: int) -> float | None:
    """What a busy Hub says, or twice as long each time; None where asking again would help nothing."""
    status = getattr(response, "status_code", 0)
    if status != 429 and status < 500:
        return None
    try:
        told = float(response.headers.get("Retry-After", ""))
    except ValueError:  # a date, or nothing
        told = 2.0**attempt
    return min(max(told, 0.0), LONGEST_WAIT)
