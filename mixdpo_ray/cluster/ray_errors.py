"""Our own errors keep their one line on the way back from a Ray task, and lose Ray's traceback around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

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
