"""Workers that die while Ray Train looks after them: who it was and of what, in a few words.

Ray Train's controller imports this file and calls it, so it imports no more than the controller has already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.train import UserCallback

from mixdpo_ray.training.listener import STORED_SECONDS

LEAST_GRACE = 5.0  # seconds
DIED = "its process died without a word: killed, or out of memory"
_SHORT_OF_MEMORY = re.compile(r"running low on memory|memory pressure|memory monitor")  # Ray killed it therefore
_PEER_GONE = re.compile(r"closed by peer|reset by peer|Broken pipe")  # said by a worker that waited for a dead one


class TellsDeaths(UserCallback):  # type: ignore[misc]
    """Tells the run's actor each death after which the workers are started again; the last one is the job's error."""

    def __init__(self, queue: str, run_actor: Any, starts: int):
        """`starts`: how often the workers are started at most."""
        self.queue, self.run_actor, self.starts, self.deaths = queue, run_actor, starts, 0

    def after_report(self, run_context: Any, metrics: Sequence[Mapping[str, Any]], checkpoint: object) -> None:
        """Let workers live past a machine's deadline as long as the last checkpoint took to be stored.

        Ray Train ends them when the deadline passes, whether the machine is gone or not, and with them a checkpoint
        that has left it and is about to count.
        """
        took = max((one.get(STORED_SECONDS, 0.0) for one in metrics), default=0.0)
        run_context.run_config.failure_config.preemption_grace_s = max(took, LEAST_GRACE)

    def after_exception(self, run_context: object, worker_exceptions: Mapping[int, Exception]) -> None:
        self.deaths += 1
        if self.deaths < self.starts:
            again = f"starting the workers again, {self.deaths + 1} of {self.starts}"
            self.run_actor.tell_death.remote(self.queue, f"{who_died(worker_exceptions)}; {again}")


def who_died(failures: Mapping[int, Exception]) -> str:
    """The workers whose processes are gone; where none is known to be, the first that failed and why."""
    dead = [rank for rank, failure in sorted(failures.items()) if _is_dead(failure)]
    if dead:
        ranks = ", ".join(map(str, dead))
        return f"worker{'s' if len(dead) > 1 else ''} {ranks} died ({_way_of_death(failures[dead[0]])})"
    rank, failure = min(failures.items())
    if _PEER_GONE.search(str(failure)):
        return "a worker died (killed, or out of memory)"
    return f"worker {rank} failed ({cause_of_death(failure)})"


def cause_of_death(failure: Exception) -> str:
    """What Ray hands on is a traceback, of which one line names the exception, or the exception itself."""
    if _is_dead(failure):
        return DIED
    lines = str(failure).strip().splitlines() or ["no message"]
    named = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return named[-1] if named else f"{type(failure).__name__}: {lines[0]}"


def _is_dead(failure: Exception) -> bool:
    return isinstance(getattr(failure, "health_check_failure", None), ray.exceptions.RayActorError)


def _way_of_death(failure: Exception) -> str:
    """What Ray knows of the reason: for a process that was killed it lists all that may have been."""
    if "node has died" in str(failure):
        return "its machine has gone"
    return "out of memory" if _SHORT_OF_MEMORY.search(str(failure)) else "killed, or out of memory"
