"""Which positions every step trains."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo_ray.curriculum.plan import Plan, Window, make_plan, thinned, window_hash
from mixdpo_ray.curriculum.settings import CurriculumSettings, Mode
from mixdpo_ray.errors import RecipeError

ULTRAFEEDBACK_EASY, ULTRAFEEDBACK_HARD = 53_748, 7_387  # 61,135 pairs at threshold 0.5


def plan_of(easy: int, hard: int, global_batch: int = 4, epochs: int = 1, **curriculum: Any) -> Plan:
    """A plan over `easy` positions followed by `hard` ones; the other way round in ascending order."""
    mask = np.arange(easy + hard) >= easy
    if curriculum.get("order") == "ascending":
        mask = mask[::-1].copy()
    return make_plan(CurriculumSettings(**curriculum), mask, global_batch, epochs)


def windows(plan: Plan) -> list[Window]:
    return [plan.window(step) for step in range(plan.steps)]


def positions(plan: Plan) -> list[list[int]]:
    return [window.positions.tolist() for window in windows(plan)]


def stages(plan: Plan) -> list[tuple[str, int, int]]:
    return [(window.stage, window.epoch, window.phase) for window in windows(plan)]


def test_a_window_is_the_next_run_of_positions_and_never_crosses_into_the_hard_stage() -> None:
    """Six easy and five hard pairs, four to a step."""
    plan = plan_of(6, 5)
    assert positions(plan) == [[0, 1, 2, 3], [4, 5], [6, 7, 8, 9], [10]]
    assert stages(plan) == [("easy", 0, 0), ("easy", 0, 0), ("hard", 0, 1), ("hard", 0, 1)]
    assert [window.hard.tolist() for window in windows(plan)] == [[False] * 4, [False] * 2, [True] * 4, [True]]


def test_a_router_trains_the_boundary_in_one_mixed_window() -> None:
    plan = plan_of(6, 5, mode="router")
    assert positions(plan) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert plan.window(1).hard.tolist() == [False, False, True, True]
    assert {stage for stage, _, _ in stages(plan)} == {"mixed"}


def test_discard_hard_stops_after_the_easy_stage() -> None:
    assert positions(plan_of(6, 5, mode="discard_hard")) == [[0, 1, 2, 3], [4, 5]]


def test_sorted_dpo_trains_all_positions_as_easy() -> None:
    plan = plan_of(11, 0, mode="sorted_dpo")  # routing calls no pair hard in this mode
    assert positions(plan) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert {stage for stage, _, _ in stages(plan)} == {"easy"}


def test_in_ascending_order_the_hard_stage_comes_first() -> None:
    plan = plan_of(6, 5, order="ascending")
    assert positions(plan) == [[0, 1, 2, 3], [4], [5, 6, 7, 8], [9, 10]]
    assert [stage for stage, _, _ in stages(plan)] == ["hard", "hard", "easy", "easy"]


def test_shuffled_two_stage_still_trains_easy_pairs_before_hard_ones() -> None:
    mask = np.array([True, False, False, True, False, False, True])
    plan = make_plan(CurriculumSettings(order="shuffled"), mask, 3, 1)
    assert positions(plan) == [[1, 2, 4], [5], [0, 3, 6]]


def test_ultrafeedback_takes_420_steps_of_dpo_and_58_of_sft() -> None:
    """53,748 / 128 = 419.9 with 116 pairs left for the last window; 7,387 / 128 = 57.7 with 91 left."""
    plan = plan_of(ULTRAFEEDBACK_EASY, ULTRAFEEDBACK_HARD, 128)
    assert plan.steps == 420 + 58
    assert [plan.window(step).stage for step in (0, 419, 420, 477)] == ["easy", "easy", "hard", "hard"]
    assert [len(plan.window(step).positions) for step in (0, 418, 419, 420, 476, 477)] == [128, 128, 116, 128, 128, 91]
    assert plan.window(420).positions[0] == ULTRAFEEDBACK_EASY


def test_ultrafeedback_takes_478_steps_in_one_pass_with_one_step_of_both_kinds() -> None:
    plan = plan_of(ULTRAFEEDBACK_EASY, ULTRAFEEDBACK_HARD, 128, mode="router")
    assert plan.steps == 478
    assert plan.window(419).hard.tolist() == [False] * 116 + [True] * 12
    assert not plan.window(418).hard.any()
    assert plan.window(420).hard.all()
    assert len(plan.window(477).positions) == 61_135 - 477 * 128  # 79


def test_stage_major_repeats_each_stage_and_curriculum_major_repeats_both() -> None:
    """Three easy pairs and one hard pair, two to a step, two epochs."""
    stage_major = plan_of(3, 1, 2, epochs=2)
    assert positions(stage_major) == [[0, 1], [2], [0, 1], [2], [3], [3]]
    assert stages(stage_major) == [("easy", 0, 0)] * 2 + [("easy", 1, 0)] * 2 + [("hard", 0, 1), ("hard", 1, 1)]
    curriculum_major = plan_of(3, 1, 2, epochs=2, epoch_order="curriculum_major")
    assert positions(curriculum_major) == [[0, 1], [2], [3], [0, 1], [2], [3]]
    assert stages(curriculum_major) == [
        *[("easy", 0, 0), ("easy", 0, 0), ("hard", 0, 1)],
        *[("easy", 1, 2), ("easy", 1, 2), ("hard", 1, 3)],
    ]


def test_a_phase_counts_its_own_steps_for_its_own_schedule() -> None:
    """Stage-major: the two epochs of a stage are one phase of four steps, then one of two."""
    plan = plan_of(3, 1, 2, epochs=2)
    assert [(window.phase_step, window.phase_steps) for window in windows(plan)] == [
        *[(0, 4), (1, 4), (2, 4), (3, 4)],
        *[(0, 2), (1, 2)],
    ]
    again = plan_of(3, 1, 2, epochs=2, epoch_order="curriculum_major")
    assert [(window.phase_step, window.phase_steps) for window in windows(again)] == [(0, 2), (1, 2), (0, 1)] * 2


def test_a_curriculum_of_one_stage_is_one_phase_however_its_epochs_are_ordered() -> None:
    plan = plan_of(4, 4, 4, epochs=3, mode="router", epoch_order="curriculum_major")
    assert stages(plan) == [("mixed", epoch, 0) for epoch in (0, 0, 1, 1, 2, 2)]


def test_a_stage_without_pairs_is_left_out() -> None:
    assert positions(plan_of(4, 0)) == [[0, 1, 2, 3]]
    assert stages(plan_of(0, 4)) == [("hard", 0, 0)]


def test_a_curriculum_that_trains_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"discard_hard trains no pair: all 4 are hard"):
        plan_of(0, 4, mode="discard_hard")


def test_thinning_keeps_every_third_window_of_each_stage_and_always_the_first_and_the_last() -> None:
    """Nine easy windows and five hard ones, of one pair each."""
    assert positions(plan_of(9, 5, 1, thin=3)) == [[0], [3], [6], [8], [9], [12], [13]]
    assert positions(plan_of(9, 5, 1, thin=100)) == [[0], [8], [9], [13]]


@pytest.mark.parametrize(
    ("count", "stride", "kept"),
    [(0, 3, []), (1, 3, [0]), (2, 3, [0, 1]), (4, 3, [0, 3]), (5, 3, [0, 3, 4]), (5, 1, [0, 1, 2, 3, 4])],
)
def test_thinned_windows(count: int, stride: int, kept: list[int]) -> None:
    assert thinned(count, stride).tolist() == kept


def test_a_thinned_curriculum_has_a_schedule_of_its_own_length() -> None:
    plan = plan_of(9, 5, 1, thin=3)
    assert [(window.phase_step, window.phase_steps) for window in windows(plan)] == [
        *[(0, 4), (1, 4), (2, 4), (3, 4)],
        *[(0, 3), (1, 3), (2, 3)],
    ]


def oracle(easy: int, hard: int, global_batch: int, epochs: int, curriculum: CurriculumSettings) -> list[list[int]]:
    """The same plan by replaying it position by position."""
    table = list(range(easy + hard))
    parts = {"router": [table], "router_shuffled": [table], "discard_hard": [table[:easy]]}
    split = parts.get(curriculum.mode, [table[:easy], table[easy:]])
    nested = [[part] * epochs for part in split] if curriculum.epoch_order == "stage_major" else [split] * epochs
    steps = []
    for part in [part for visit in nested for part in visit]:
        cut = [part[start : start + global_batch] for start in range(0, len(part), global_batch)]
        steps += [
            window
            for number, window in enumerate(cut)
            if number % curriculum.thin == 0 or number == len(cut) - 1
        ]  # fmt: skip
    return steps


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    easy=st.integers(1, 40),
    hard=st.integers(0, 40),
    global_batch=st.integers(1, 17),
    epochs=st.integers(1, 3),
    mode=st.sampled_from([mode for mode in get_args(Mode) if mode != "sorted_dpo"]),
    epoch_order=st.sampled_from(["stage_major", "curriculum_major"]),
    thin=st.integers(1, 4),
)
def test_the_plan_equals_a_naive_replay(
    easy: int, hard: int, global_batch: int, epochs: int, mode: Mode, epoch_order: Any, thin: int
) -> None:
    curriculum = CurriculumSettings(mode=mode, epoch_order=epoch_order, thin=thin)
    plan = make_plan(curriculum, np.arange(easy + hard) >= easy, global_batch, epochs)
    found = windows(plan)
    assert [window.positions.tolist() for window in found] == oracle(easy, hard, global_batch, epochs, curriculum)
    assert [window.step for window in found] == list(range(plan.steps))
    for window in found:
        assert window.hard.tolist() == (window.positions >= easy).tolist()
        assert mode not in ("two_stage", "discard_hard") or len(set(window.hard.tolist())) == 1
        assert 0 <= window.phase_step < window.phase_steps
    for before, after in pairwise(found):
        same = after.phase == before.phase
        assert after.phase_step == (before.phase_step + 1 if same else 0)
        assert same or before.phase_step == before.phase_steps - 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(easy=st.integers(1, 60), hard=st.integers(0, 60), global_batch=st.integers(1, 40), epochs=st.integers(1, 3))
def test_every_pair_is_trained_exactly_once_per_epoch(easy: int, hard: int, global_batch: int, epochs: int) -> None:
    for mode in ("two_stage", "router"):
        seen: Counter[tuple[int, int]] = Counter()
        for window in windows(plan_of(easy, hard, global_batch, epochs, mode=mode)):
            seen.update((window.epoch, position) for position in window.positions.tolist())
        assert seen == Counter({(epoch, position): 1 for epoch in range(epochs) for position in range(easy + hard)})


def test_seeking_asks_for_no_earlier_step() -> None:
    """A plan asked for its last step only says what a plan says that was read from the start."""
    walked, sought = plan_of(1000, 300, 7, epochs=2), plan_of(1000, 300, 7, epochs=2)
    last = windows(walked)[-1]
    window = sought.window(sought.steps - 1)
    assert window.positions.tolist() == last.positions.tolist() == [1294, 1295, 1296, 1297, 1298, 1299]
    assert (window.stage, window.epoch, window.phase_step) == (last.stage, last.epoch, last.phase_step)


@pytest.mark.parametrize("step", [-1, 4])
def test_a_step_outside_the_plan_is_a_bug(step: int) -> None:
    with pytest.raises(AssertionError, match="outside the plan's 4 steps"):
        plan_of(6, 5).window(step)


def test_ten_million_pairs_are_planned_without_holding_a_window() -> None:
    """9,000,000 / 128 = 70,312.5 and 1,000,000 / 128 = 7,812.5 windows; the plan's own arrays are a few per table."""
    plan = plan_of(9_000_000, 1_000_000, 128, epochs=2)
    assert plan.steps == 2 * (70_313 + 7_813)
    assert plan.window(plan.steps - 1).positions.tolist() == list(range(10_000_000 - 64, 10_000_000))
    assert [segment.positions for segment in plan.segments[1:3]] == [range(9_000_000), range(9_000_000, 10_000_000)]


@pytest.mark.parametrize("hard", [[0, 1, 1, 0, 1], [1, 0, 1], [0, 0, 1, 1], [1, 1, 0], [0], [1], [0, 1, 1, 0]])
def test_positions_that_follow_each_other_or_do_not_are_the_same_plan(hard: list[int]) -> None:
    mask = np.array(hard, np.bool_)
    expected = [np.flatnonzero(~mask).tolist(), np.flatnonzero(mask).tolist()]
    found = [window.positions for window in windows(make_plan(CurriculumSettings(), mask, 10, 1))]
    assert [positions.tolist() for positions in found] == [each for each in expected if each]
    assert {positions.dtype for positions in found} == {np.dtype(np.int64)}


def test_a_windows_hash_names_its_pairs_and_their_order() -> None:
    assert window_hash(["aa", "bb"]) == window_hash(["aa", "bb"])
    assert len({window_hash(names) for names in (["aa", "bb"], ["bb", "aa"], ["aa"], [])}) == 4
