"""Ctrl-C that is not lost. Python raises KeyboardInterrupt wherever the main thread happens to be, and where that is a
callback of compiled code, the exception is printed or dropped and the job goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interruption:
    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise it again, from where nobody swallows exceptions at."""
        if self.asked:
            raise KeyboardInterrupt

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Remember a SIGINT that arrives in the body, and check once more at its end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._hear)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        self.check()

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt
