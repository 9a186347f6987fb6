"""The Hugging Face Hub, asked once a process and briefly whether it answers.

Each library would try six times for every file, for a minute and with a line each, before it says that nobody answers.
Where the Hub is silent, what is cached is taken, as with HF_HUB_OFFLINE=1.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from mixdpo_ray.training.hub_fetch import already_fetched
from mixdpo_ray.wording import first_line

ANSWER_SECONDS = 5.0
_TRIES = 2


@contextmanager
def brief_hub(name: str, revision: str | None = None) -> Iterator[None]:
    """Load something by a name that may be the Hub's."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    asks = not before and not Path(name).exists()
    if asks and (already_fetched(name, revision) or silence(constants.ENDPOINT)):
        constants.HF_HUB_OFFLINE = True  # transformers and datasets ask it there
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@cache
def silence(endpoint: str) -> str | None:
    """Why the Hub cannot be reached; nothing where it answers, whatever it says."""
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError

    http_error: Any = HfHubHTTPError.__bases__[0]  # the root of what its HTTP library raises, whichever that is
    reason = None
    for _ in range(_TRIES):
        try:
            get_session().head(endpoint, timeout=ANSWER_SECONDS)
        except (OSError, http_error) as error:
            reason = first_line(error)
        else:
            return None
    return reason


def why_not_loaded(name: str, error: Exception) -> str:
    """What a library says of a name, in one line; where the Hub was silent, that."""
    from huggingface_hub import constants

    if Path(name).exists() or not (reason := silence(constants.ENDPOINT)):
        return first_line(error)
    return (
        f"it is no folder here and not in the cache, and {constants.ENDPOINT} does not answer ({reason}): correct the "
        "name, give a folder, or mend the network"
    )
