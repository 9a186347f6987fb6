import math

import pytest

from mixdpo_ray.playground.judge import Verdict, mean_with_interval, wilson_interval
from mixdpo_ray.playground.prompts import Prompt
from mixdpo_ray.playground.verdict import describe_verdict

PROMPTS = [Prompt.of_text(text) for text in ("sort c a b", "reverse c b a", "double a b", "swap a b c d")]
VERDICT = Verdict(PROMPTS, ["a b d", "a b c", "a a b b", "b a d"], ["a b c", "a b c", "a a b c", "b a d c"])


def test_a_tie_counts_half() -> None:
    """Won, tied, lost, won: (2 + 1/2) / 4."""
    assert VERDICT.gains == pytest.approx([3.0, 0.0, -2.25, 2.25])
    assert VERDICT.counts == (2, 1, 1)
    assert VERDICT.win_rate == 0.625


def test_wilson_interval_of_a_half() -> None:
    """With z = 2 and n = 12: centre (0.5 + 4/24) / (1 + 4/12) = 1/2, half 2 sqrt(1/48 + 1/144) / (4/3) = 1/4."""
    assert wilson_interval(0.5, 12, z=2) == pytest.approx((0.25, 0.75))


def test_wilson_interval_of_a_certain_win() -> None:
    """With z = 2 and 12 wins of 12: from n / (n + z^2) = 0.75 to 1."""
    assert wilson_interval(1.0, 12, z=2) == pytest.approx((0.75, 1.0))


def test_the_interval_of_a_mean() -> None:
    """Variance of 1, 2, 3 is 1, so the half width is 1.96 / sqrt(3)."""
    assert mean_with_interval([1, 2, 3]) == pytest.approx((2, 1.96 / math.sqrt(3)))


def test_the_words_hold_the_numbers_and_a_sample_of_each_operation() -> None:
    text = describe_verdict(VERDICT)
    assert "win rate           62.5%" in text
    assert "2 won, 1 tied, 1 lost" in text
    assert [line.split()[0] for line in text.splitlines()[:5]] == ["prompt", "sort", "reverse", "double", "swap"]
