"""A Ray that was started here and whose own processes die: one line and the end, at once.

Ray itself says it in forty lines of C++, ten seconds to a minute later, and whatever calls Ray in between hangs. No
exception could end the job in peace: each `finally` on its way would call Ray again. So the process ends as Ray would
end it, after the processes that are left. What was being written is in the state that a kill leaves.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from subprocess import Popen

import psutil

LOOK_SECONDS = 0.5  # between two looks
SHOW_CURSOR = "\033[?25h"  # which a bar hides


@contextmanager
def watched(processes: Mapping[str, Popen[bytes]]) -> Iterator[None]:
    """End this process when one of Ray's dies in the body. `processes`: by the names that a person is told."""
    finished = threading.Event()

    def watch() -> None:
        while not finished.wait(LOOK_SECONDS):
            dead = [name for name, process in processes.items() if process.poll() is not None]
            if dead and not finished.is_set():
                for process in processes.values():
                    _kill(process.pid)
                cursor = SHOW_CURSOR if sys.stderr.isatty() else ""
                reason = f"{dead[0]} died (killed, or out of memory)"
                print(f"{cursor}failed: {reason}; the same command continues", file=sys.stderr, flush=True)
                os._exit(1)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def _kill(pid: int) -> None:
    """Kill a process and all below it: agents of a raylet whose head has gone would look for it for a minute."""
    with suppress(psutil.NoSuchProcess):
        for process in (*psutil.Process(pid).children(recursive=True), psutil.Process(pid)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
