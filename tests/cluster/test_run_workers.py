"""Why workers failed, in one line, whatever Ray hands on."""

from __future__ import annotations

import pytest
import ray
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

from mixdpo_ray.cluster.run_workers import workers_error

TRACEBACK = 'Traceback (most recent call last):\n  File "loop.py", line 3, in step\nValueError: too long\nby 3 tokens\n'
DEAD = WorkerHealthCheckFailedError("unhealthy", ray.exceptions.RayActorError())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (WorkerGroupError("", {1: RuntimeError(TRACEBACK)}), "rank 1: ValueError: too long"),
        (WorkerGroupError("", {0: RuntimeError("no memory\nat all")}), "rank 0: RuntimeError: no memory"),
        (WorkerGroupError("", {0: DEAD}), "rank 0: its process died without a word: killed, or out of memory"),
        (WorkerGroupError("", {1: KeyError("b"), 0: KeyError("a")}), "rank 0: KeyError: 'a'; rank 1: KeyError: 'b'"),
        (ControllerError(RuntimeError(TRACEBACK)), "ValueError: too long"),
    ],
)
def test_the_reason_is_one_line_that_names_rank_and_exception(error: TrainingFailedError, said: str) -> None:
    assert str(workers_error(error, retries=0)) == f"the workers failed: {said}"


def test_retries_are_counted_and_their_setting_named() -> None:
    error = WorkerGroupError("", {0: KeyError("a")})
    assert str(workers_error(error, retries=3)) == (
        "the workers failed 4 times: rank 0: KeyError: 'a'; see cluster.max_failures"
    )
