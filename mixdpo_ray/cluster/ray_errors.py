"""Our own errors keep their one line on the way back from a Ray task or actor, and lose Ray's traceback around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from mixdpo_ray import errors
from mixdpo_ray.errors import MixDPOError
from mixdpo_ray.wording import first_line


@contextmanager
def plain_errors() -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if not isinstance(error.cause, MixDPOError):
            raise
        # Ray Data adds lines of advice about retries to the message; ours have one line
        raise type(error.cause)(first_line(error.cause)) from None


def error_of_making(error: ray.exceptions.ActorDiedError) -> MixDPOError | None:
    """Our own error, if it was one, for which an actor could not be made: Ray keeps its text alone."""
    said = re.findall(rf"^{re.escape(errors.__name__)}\.(\w+): (.*)$", str(error), flags=re.MULTILINE)
    if not said:
        return None
    name, text = said[-1]
    kind: type[MixDPOError] = getattr(errors, name)
    return kind(text)
