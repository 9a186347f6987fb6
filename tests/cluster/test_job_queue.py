"""The jobs of a worker group: who is given which, and when; without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest

from mixdpo_ray.cluster.hang_detector import Beat
from mixdpo_ray.cluster.job_queue import Ended, JobQueue
from mixdpo_ray.errors import NonFiniteError, PreparedTableError

STUCK = Beat(0, 1, "a", 7, "step 3, the update", False, "logps.py:88 pair_logps")


def queue(*jobs: bytes) -> JobQueue:
    made = JobQueue()
    for job in jobs:
        made.put(job.decode(), job)
    return made


def answer(question: Awaitable[Any]) -> Any:
    """At once: it must not have to wait."""
    return asyncio.run(asyncio.wait_for(question, 1))


def waits(question: Awaitable[Any]) -> bool:
    async def asked() -> bool:
        task = asyncio.ensure_future(question)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        still = not task.done()
        task.cancel()
        return still

    return asyncio.run(asked())


def test_every_rank_is_given_the_same_job_until_its_end_is_told() -> None:
    jobs = queue(b"first", b"second")
    assert [answer(jobs.next(-1)) for _ in range(3)] == [(0, b"first")] * 3
    assert waits(jobs.next(0)), "a rank that is done with a job waits for rank 0 to tell its end"
    jobs.end(0, Ended({"steps": 4}))
    assert answer(jobs.next(0)) == (1, b"second")
    assert answer(jobs.next(-1)) == (1, b"second"), "of workers that were started again in between"


def test_an_idle_worker_waits_for_more_jobs_and_goes_home_when_none_will_come() -> None:
    assert waits(queue().next(-1))
    jobs = queue()

    async def waited() -> list[Any]:
        ranks = [asyncio.ensure_future(jobs.next(-1)) for _ in range(2)]
        await asyncio.sleep(0)
        jobs.put("late", b"late")
        found = await asyncio.gather(*ranks)
        jobs.end(0, Ended({}))
        leaving = asyncio.ensure_future(jobs.next(0))
        await asyncio.sleep(0)
        jobs.close()
        return [*found, await leaving]

    assert asyncio.run(waited()) == [(0, b"late"), (0, b"late"), None]


def test_what_was_queued_is_trained_though_the_queue_is_closed() -> None:
    jobs = queue(b"first", b"second")
    jobs.close()
    assert answer(jobs.next(-1)) == (0, b"first")
    jobs.end(0, Ended({}))
    assert answer(jobs.next(0)) == (1, b"second")
    jobs.end(1, Ended({}))
    assert answer(jobs.next(1)) is None
    assert jobs.put("late", b"too late") is None


def test_whoever_handed_a_job_over_learns_its_summary_or_its_error() -> None:
    jobs = queue(b"first", b"second")
    assert waits(jobs.ended(0))
    jobs.end(0, Ended({"steps": 4}))
    assert answer(jobs.ended(0)).result() == {"steps": 4}
    jobs.end(1, Ended(error=NonFiniteError("step 3: the loss is not finite")))
    with pytest.raises(NonFiniteError, match="step 3"):
        answer(jobs.ended(1)).result()


def test_only_the_first_word_about_a_job_counts() -> None:
    jobs = queue(b"first", b"second")
    jobs.end(0, Ended(error=PreparedTableError("of rank 1")), for_good=True)
    jobs.end(0, Ended(error=PreparedTableError("of rank 0")), for_good=True)
    with pytest.raises(PreparedTableError, match="of rank 1"):
        answer(jobs.ended(0)).result()


def test_after_an_error_of_one_rank_the_workers_go_home_and_nothing_more_is_queued() -> None:
    jobs = queue(b"first", b"second")
    jobs.end(0, Ended(error=PreparedTableError("of rank 1")), for_good=True)
    assert answer(jobs.next(-1)) is None
    assert jobs.put("third", b"third") is None
    assert jobs.stopped


def test_workers_that_are_gone_leave_no_one_waiting() -> None:
    jobs = queue(b"first")
    jobs.abandon()
    assert answer(jobs.ended(0)) is None
    assert jobs.put("second", b"second") is None


def test_a_hang_that_a_restart_cured_explains_no_later_failure() -> None:
    jobs = queue(b"first")
    assert jobs.observe(0, STUCK, 10, now=0.0) == (None, True)
    verdict, first = jobs.observe(0, STUCK, 10, now=11.0)
    assert first
    assert verdict is not None
    assert "step 3, the update" in verdict
    assert jobs.observe(0, STUCK, 10, now=11.5) == (verdict, False)
    assert jobs.hang == verdict
    assert jobs.observe(0, replace(STUCK, process="b"), 10, now=12.0)[0] is None
    assert jobs.hang is None


def test_a_job_is_not_judged_by_the_one_before() -> None:
    """Neither by its verdict, nor by how slow it was, nor by a sign that comes late."""
    jobs = queue(b"slow", b"quick")
    for count in range(3):
        jobs.observe(0, replace(STUCK, count=count), 100, now=90.0 * count)
    jobs.end(0, Ended({}))
    assert jobs.observe(0, STUCK, 100, now=1e6) == (None, False)
    assert jobs.hang is None
    jobs.observe(1, STUCK, 10, now=0.0)
    assert jobs.observe(1, STUCK, 10, now=11.0)[0] is not None


def test_a_training_is_held_until_its_end_or_that_of_its_group() -> None:
    jobs = queue(b"first", b"second")
    assert jobs.holds("first")
    jobs.end(0, Ended({}))
    assert [jobs.holds(run) for run in ("first", "second", "third")] == [False, True, False]
    jobs.abandon()
    assert not jobs.holds("second")


def test_workers_that_were_started_again_are_not_ended_for_what_those_before_them_did() -> None:
    """Until their first sign, which may take a minute, only the dead were heard of."""
    jobs = queue(b"first")
    jobs.hold(0, "the frozen one")
    jobs.observe(0, STUCK, 3, now=0.0)
    verdict, ended = jobs.judge(now=4.0)
    assert verdict is not None
    assert ended == ["the frozen one"]
    jobs.hold(0, "its successor")
    assert jobs.judge(now=9.0) == (None, [])
    assert jobs.observe(0, replace(STUCK, process="b"), 3, now=70.0) == (None, True)
