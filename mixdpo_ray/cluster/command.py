"""What every job does with its command line: RECIPE.yaml [dotted.key=value ...], and an exit status to trust.

0 done, 1 failed with a one-line reason, 2 bad arguments or recipe, 3 stopped by train.stop_after, 130 interrupted;
after the last two the same command continues.

This file imports next to nothing: Ctrl-C is one line from the first moment on, while all else is still being imported.
Ray, torch and what else takes seconds comes after the recipe was read: help and refusals are there at once.
"""

from __future__ import annotations

import sys
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from mixdpo_ray.recipe.recipe import Recipe

_BEGAN: ContextVar[float | None] = ContextVar("began", default=None)  # UNIX time, inside a job


class Report(Protocol):
    """What a verb returns."""

    def describe(self) -> str:
        """The closing lines."""


def run_job(
    description: str | None,
    verb: Callable[..., Report],
    *,
    connect: bool = True,
    flags: Mapping[str, str] | None = None,
    settings: Sequence[str] = (),
    section: str = "",
) -> None:
    """Read the recipe, hand it to the verb, print its report, and leave with the exit status.

    A verb connects to Ray by itself and looks it over once (preflight.ready_cluster), so that a program of one's own
    may call it as well. With `connect` Ray is there before: its processes start while the verb's libraries are
    imported. Not so for a verb that needs no Ray, or says itself how many CPUs one should have. `flags`: options that
    are on or off, and their help; the verb takes them by name. `settings`: the only ones that it reads, for its help.
    `section`: of the recipe, the job's own, which its help shows before the settings that every job needs.
    """

    def job() -> None:
        from contextlib import nullcontext

        from mixdpo_ray.cluster.recipe_arguments import recipe_of, recipe_parser

        arguments = vars(recipe_parser(description or "", flags or {}, settings, section).parse_args())
        recipe = recipe_of(arguments.pop("recipe"), arguments.pop("overrides"))
        with _connected(recipe, verb.__name__) if connect else nullcontext():
            print(verb(recipe, **arguments).describe())

    run_command(job)


def before_ray(job: str, *recipes: Recipe) -> None:
    """Refuse what is wrong with the recipes' own files, and say what the first seconds of a job go to.

    Every verb that needs Ray passes by here, before it imports or starts anything that takes seconds. What is said is
    said again until Ray is there. A verb that is a step of another one finds it there, and has nothing to say.
    """
    import os

    from mixdpo_ray.bar import say
    from mixdpo_ray.recipe.inputs import refuse_wrong_inputs

    refuse_wrong_inputs(*recipes, trains=job not in ("prepare", "score", "publish"))
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS")
    doing = f"joining the Ray at {address}" if address else "loading libraries and starting Ray on this machine"
    say(f"{job}: {doing}", meanwhile=f"{job}: {doing}")


def _connected(recipe: Recipe, job: str) -> AbstractContextManager[None]:
    before_ray(job, recipe)
    from mixdpo_ray.cluster.connect import connected

    import_meanwhile("torch")
    return connected(recipe.cluster)


def import_meanwhile(module: str) -> None:
    """Import a module in a thread, while the caller waits for processes to start. Python waits for it at its exit."""
    import importlib
    import threading

    threading.Thread(target=importlib.import_module, args=(module,)).start()


def run_command(job: Callable[[], None]) -> None:
    """Leave with the exit status of the job. What a job imports, it imports when it is called."""
    import os
    import signal

    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # else what is cleared away late starts a Ray of its own
    _BEGAN.set(time.time())
    status = exit_status(job)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # nothing is left to interrupt: Python waits for its own threads
    sys.exit(status)


def job_began() -> float:
    """UNIX time at which the job began; now, where a program of one's own calls a verb."""
    return _BEGAN.get() or time.time()


def exit_status(job: Callable[[], None]) -> int:
    try:
        return _status(job)
    except BaseException as error:
        if not _was_interrupted(error):
            raise
        print("interrupted; the same command continues", file=sys.stderr)
        return 130


def _status(job: Callable[[], None]) -> int:
    import atexit
    import gc

    from mixdpo_ray.errors import MixDPOError, RecipeError, StoppedError

    _show_every_sign()
    atexit.register(gc.freeze)  # else Python looks for cycles in all of torch before it ends: a second
    try:
        job()
    except StoppedError as stopped:
        print(stopped, file=sys.stderr)
        return 3
    except MixDPOError as error:
        if _was_interrupted(error):
            raise
        refused = isinstance(error, RecipeError)
        print(error if refused else f"failed: {error}", file=sys.stderr)
        return 2 if refused else 1
    return 0


def _show_every_sign() -> None:
    """A terminal that has no ± shows +-: without this the closing lines of a run would end in a traceback."""
    import codecs
    import io

    from mixdpo_ray.wording import in_ascii

    codecs.register_error("in_ascii", in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="in_ascii")


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C began it: compiled modules turn what interrupts their import into errors of their own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
