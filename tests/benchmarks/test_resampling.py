"""Ratios by hand, intervals that nothing global moves, and differences under the same draws."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo_ray.benchmarks.resampling import Ratio, difference, with_interval
from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.intervals import wilson

OUTCOMES = {"a": 1.0, "b": 0.0, "c": 0.5, "d": 1.0}


def test_a_win_rate_and_its_standard_error_by_hand() -> None:
    """Mean 5/8; squares of the deviations 9/64, 25/64, 1/64, 9/64 sum to 44/64, so sd^2 = 44/192.

    Four wins are drawn in 16 of 256 samples, above 2.5 %; less than one win in 5 of 256, below it.
    """
    score = with_interval(Ratio.mean(OUTCOMES))
    assert score.value == pytest.approx(62.5)
    assert score.error == pytest.approx(100 * math.sqrt(44 / 192 / 4))
    assert (score.low, score.high, score.prompts) == (25.0, 100.0, 4)


def test_battles_weigh_and_prompts_are_drawn() -> None:
    """Two prompts, 3 of 3 battles won and 0 of 1: 75 %. One drawn twice gives 100 or 0, never anything between."""
    ratio = Ratio.of({"a": (3.0, 3.0), "b": (0.0, 1.0)})
    assert ratio.standard_error == pytest.approx(100 * math.sqrt(2 * (0.75**2 + 0.75**2)) / 4)  # 3 - 2.25 and 0 - 0.75
    values = {ratio.value(np.array(counts, dtype=float)) for counts in ((2, 0), (1, 1), (0, 2))}
    assert values == {100.0, 75.0, 0.0}
    assert with_interval(ratio).value == 75.0


def test_equal_games_of_a_prompt_narrow_nothing() -> None:
    """Both orders with the same outcome are one prompt's: battles taken as independent would shrink this by sqrt(2)."""
    once = with_interval(Ratio.of({item: (p, 1.0) for item, p in OUTCOMES.items()}))
    twice = with_interval(Ratio.of({item: (2 * p, 2.0) for item, p in OUTCOMES.items()}))
    assert (once.low, once.high, once.error) == pytest.approx((twice.low, twice.high, twice.error))


def test_nothing_but_wins_is_not_certain() -> None:
    score = with_interval(Ratio.mean(dict.fromkeys("abcdefghij", 1.0)))
    assert score.value == 100
    assert score.low == pytest.approx(100 * wilson(1.0, 10)[0])


def test_equal_numbers_are_no_shares_and_keep_their_interval() -> None:
    """Nobody adds a won and a lost prompt to lengths: all of 500 characters are 500 in every sample."""
    long, short = (Ratio.mean(dict.fromkeys("abcd", length), percent=False) for length in (500.0, 300.0))
    for score in (with_interval(long), difference(long, short)):
        assert score.low == score.value == score.high
    assert difference(long, short).value == 200


def test_one_number_says_nothing_of_others() -> None:
    """A single prompt with ratings 8 and 7 tells no arm ahead."""
    eight, seven = (Ratio.mean({"a": rating}, percent=False) for rating in (8.0, 7.0))
    for score in (with_interval(eight), difference(eight, seven)):
        assert (score.low, score.high) == (-math.inf, math.inf)
    assert not difference(eight, seven).excludes_zero


def test_global_generators_neither_move_an_interval_nor_are_moved() -> None:
    ratio = Ratio.mean(OUTCOMES)
    before = with_interval(ratio)
    random.seed(5)
    np.random.seed(5)
    state, state_np = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    assert with_interval(ratio) == before
    assert random.getstate() == state
    assert (np.random.get_state()[1] == state_np).all()  # type: ignore[index]
    wide = {str(n): n / 50 for n in range(50)}
    assert with_interval(Ratio.mean(wide), seed=1).low != with_interval(Ratio.mean(wide), seed=2).low


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=2, max_size=12), st.randoms())
def test_the_order_of_rows_changes_nothing(outcomes: dict[str, float], draw: random.Random) -> None:
    rows = list(outcomes.items())
    draw.shuffle(rows)
    assert with_interval(Ratio.mean(dict(rows)), resamples=50) == with_interval(Ratio.mean(outcomes), resamples=50)


@settings(deadline=None, max_examples=30)
@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=2, max_size=12))
def test_swapping_sides_mirrors_the_score_and_its_interval(outcomes: dict[str, float]) -> None:
    one = with_interval(Ratio.mean(outcomes), resamples=100)
    other = with_interval(Ratio.mean({item: 1 - p for item, p in outcomes.items()}), resamples=100)
    assert other.value == pytest.approx(100 - one.value)
    assert (other.low, other.high) == pytest.approx((100 - one.high, 100 - one.low), abs=1e-6)


def test_arms_on_the_same_prompts_differ_by_less_than_chance_would_say() -> None:
    """One arm is better by 0.1 on every one of 40 prompts: no sample says otherwise, though both scores vary.

    The interval is then that of 40 equal differences and two more, one for each side.
    """
    draw = random.Random(0)
    weak = {str(n): 0.9 * draw.random() for n in range(40)}
    strong = {item: p + 0.1 for item, p in weak.items()}
    apart = difference(Ratio.mean(strong), Ratio.mean(weak))
    assert apart.value == pytest.approx(10)
    assert apart.error == pytest.approx(0, abs=1e-9)
    assert apart.high - apart.low == pytest.approx(14.6, abs=0.1)
    assert apart.excludes_zero
    assert with_interval(Ratio.mean(strong)).error > 3


def test_arms_are_joined_by_item_where_one_lacks_an_answer() -> None:
    full = {str(n): n / 10 for n in range(10)}
    short = {item: p for item, p in full.items() if item != "3"}
    assert difference(Ratio.mean(full), Ratio.mean(full)).error == 0
    assert abs(difference(Ratio.mean(full), Ratio.mean(short)).value) < 2


def test_samples_without_any_prompt_of_an_arm_say_nothing_of_it() -> None:
    """The short arm's one prompt is in 3 of 4 samples of two, where the difference is -50 or 0."""
    apart = difference(Ratio.mean({"a": 1.0, "b": 0.0}), Ratio.mean({"a": 1.0}))
    assert (apart.value, apart.low, apart.high) == (-50, -50, 0)


def test_without_any_verdict_there_is_no_score() -> None:
    with pytest.raises(EvaluationError, match="no prompt has a verdict"):
        Ratio.of({"a": (0.0, 0.0)})
