import time

import pytest

from mixdpo_ray.cluster.hang_detector import SLOW, Beat, HangDetector, WakingClock


def beat(
    rank: int, count: int, location: str | None = "step 3, the update", *, process: str = "a", slow: bool = False
) -> Beat:
    return Beat(rank, 2, process, count, location, slow, "logps.py:88 pair_logps")


def told(vigil: HangDetector, until: int, *beats: Beat, begin: int = 0) -> str | None:
    """The verdict after each of these was heard every second."""
    for second in range(begin, until):
        for one in beats:
            vigil.observe(one, float(second))
    return vigil.verdict


def test_a_group_that_moves_is_left_alone() -> None:
    vigil = HangDetector(10)
    for second in range(200):
        for rank in range(2):
            assert vigil.observe(beat(rank, second // 5), float(second)) is None


def test_the_rank_that_is_behind_is_named_when_nothing_moves_any_more() -> None:
    vigil = HangDetector(10)
    stuck = beat(1, 41, "step 3, micro-batch 2 of 4")
    assert told(vigil, 10, beat(0, 42), stuck) is None
    assert told(vigil, 12, beat(0, 42), stuck, begin=10) == (
        "rank 1 of 2 stands at step 3, micro-batch 2 of 4 (logps.py:88 pair_logps); the others wait for 10 s "
        "(cluster.hang_seconds)"
    )


def test_a_rank_that_does_not_answer_is_named_before_one_that_is_behind() -> None:
    vigil = HangDetector(10)
    told(vigil, 2, beat(0, 41), beat(1, 42))
    verdict = told(vigil, 13, beat(0, 41), begin=2)
    assert verdict is not None
    assert verdict.startswith("rank 1 of 2 has not answered since step 3")


def test_ranks_that_all_wait_at_one_place_point_at_the_network() -> None:
    verdict = told(HangDetector(10), 12, beat(0, 42), beat(1, 42))
    assert verdict is not None
    assert verdict.startswith("all 2 ranks stand at step 3, the update")
    assert "network" in verdict


def test_saving_and_evaluating_may_take_ten_times_as_long() -> None:
    vigil = HangDetector(10)
    assert told(vigil, 10 * SLOW, beat(0, 5, slow=True), beat(1, 5)) is None
    assert told(vigil, 10 * SLOW + 2, beat(0, 5, slow=True), beat(1, 5), begin=10 * SLOW) is not None


def test_nothing_is_said_while_a_rank_loads_or_has_not_begun() -> None:
    assert told(HangDetector(10), 1000, beat(0, 5)) is None
    assert told(HangDetector(10), 1000, beat(0, 5), beat(1, 4, location=None)) is None


def test_steps_that_were_slow_before_may_be_slow_again() -> None:
    """Nothing moved for 9 s once, so 27 s is not yet a hang."""
    vigil = HangDetector(10)
    told(vigil, 9, beat(0, 1), beat(1, 1))
    told(vigil, 10, beat(0, 2), beat(1, 2), begin=9)
    assert told(vigil, 36, beat(0, 2), beat(1, 2), begin=10) is None
    assert told(vigil, 38, beat(0, 2), beat(1, 2), begin=36) is not None


def test_a_slow_first_step_does_not_make_a_later_hang_last() -> None:
    vigil = HangDetector(10)
    told(vigil, 90, beat(0, 1, slow=True), beat(1, 1, slow=True))
    told(vigil, 91, beat(0, 2), beat(1, 2), begin=90)
    assert told(vigil, 102, beat(0, 2), beat(1, 2), begin=91) is not None


def test_a_group_that_was_started_again_is_judged_anew() -> None:
    vigil = HangDetector(10)
    assert told(vigil, 12, beat(0, 42), beat(1, 41)) is not None
    assert vigil.observe(beat(0, 1, process="b"), 20.0) is None
    assert vigil.observe(beat(1, 1, process="b"), 20.0) is None


def test_a_group_of_which_nobody_speaks_is_judged_by_the_clock_alone() -> None:
    vigil = HangDetector(10)
    told(vigil, 2, beat(0, 41), beat(1, 42))
    assert vigil.judge(19.0) is None
    assert (
        vigil.judge(22.0)
        == "none of the 2 ranks has answered since step 3, the update, for 22 s (cluster.hang_seconds)"
    )
    assert vigil.silent(22.0) == [0, 1]


def test_a_machine_that_slept_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([100.0, 101.0, 103.0, 3103.0, 3104.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    clock = WakingClock(longest_gap=3)
    assert [clock.now() for _ in range(4)] == [1, 3, 6, 7]
