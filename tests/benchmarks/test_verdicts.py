"""Every odd thing that judges reply, and that nothing but their words becomes a verdict."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixdpo_ray.benchmarks.alpaca_eval_2 import preference_verdict
from mixdpo_ray.benchmarks.arena_hard_v0_1 import ArenaHardV01
from mixdpo_ray.benchmarks.arena_hard_v2 import ArenaHardV2
from mixdpo_ray.benchmarks.mt_bench import rating
from mixdpo_ray.benchmarks.pairwise import won
from mixdpo_ray.benchmarks.verdict import UNREADABLE, JudgeReply, JudgeVerdict, missing_verdicts
from mixdpo_ray.errors import EvaluationError


def told(verdict: JudgeVerdict) -> tuple[float, int] | str:
    return verdict.reason if verdict.value is None else (verdict.value, verdict.battles)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("first", "second", "model_first", "preference"),
    [
        (-9.03137, -0.0001202317, True, 1.0001195986),
        (-0.89812356, -0.52312356, False, 1.5926666),
        (-0.6326132, -0.7576132, True, 1.5312093734),
    ],
)
def test_a_preference_is_the_share_of_the_identifiers_probability(
    first: float, second: float, model_first: bool, preference: float
) -> None:
    """Three log-probs of the leaderboard, and the preferences that it published for them."""
    verdict = preference_verdict({"m": first, "M": second})
    assert 1 + won("model_first" if model_first else "baseline_first", verdict) == pytest.approx(preference, abs=1e-7)


@pytest.mark.parametrize(
    ("logps", "expected"),
    [
        ({"m": -0.1}, (1.0, 1)),
        ({"M": -3.0, "The": -0.1}, (0.0, 1)),
        ({"m": -1.0, "M": -1.0}, (0.5, 1)),
        ({"m": -2000.0, "M": -0.0}, (0.0, 1)),
        ({"m": -0.0, "M": -2000.0}, (1.0, 1)),
        ({"The": -0.1, "Both": -2.0}, "no_identifier"),
        ({" m": -0.1, "\u039c": -0.2}, "no_identifier"),  # a blank before it, and a Greek capital
        ({"m": -math.inf, "M": -math.inf}, "no_identifier"),
        ({"m": math.nan, "M": -1.0}, "no_identifier"),
        ({}, "no_identifier"),
        (None, "no_log_probs"),
    ],
)
def test_an_identifier_that_is_missing_has_no_probability(
    logps: dict[str, float] | None, expected: tuple[float, int] | str
) -> None:
    assert told(preference_verdict(logps)) == expected


BOTH_VERSIONS = [
    ("My final verdict is [[A>>B]].", (1.0, 3)),
    ("[[A>B]]", (1.0, 1)),
    ("so: [[A=B]]", (0.5, 1)),
    ("[[B>A]]", (0.0, 1)),
    ("[[B>>A]]", (0.0, 3)),
    ("[[A=B]] ... [[A=B]]", (0.5, 1)),
    ("", "no_mark"),
    ("Assistant A is better.", "no_mark"),
    ("[[C>A]]", "no_mark"),
    ("[[ A>B ]]", "no_mark"),
    ("[[]]", "no_mark"),
    ("[[A>>>B]]", "unknown_mark"),
    ("[[A]]", "unknown_mark"),
    ("[[>]]", "unknown_mark"),
]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *BOTH_VERSIONS,
        ("At first [[A>B]], but no: [[B>A]]", "marks_disagree"),
        ("[[A>B]] and strongly so, [[A>>B]]", "marks_disagree"),
        ("[[a>b]]", "no_mark"),
        ("[A>B]", "no_mark"),
        ("[[A<B]]", "unknown_mark"),
    ],
)
def test_the_marks_of_arena_hard_v0_1_must_agree(said: str, expected: tuple[float, int] | str) -> None:
    assert told(ArenaHardV01.verdict(said)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        *BOTH_VERSIONS,
        ("At first [[A>B]], but no: [[B>A]]", (0.0, 1)),
        ("[[a>>b]]", (1.0, 3)),
        ("[B>A]", (0.0, 1)),
        ("[[A=B]], not [B>A]", (0.5, 1)),  # single brackets are read where double ones are nowhere
        ("[[A<B]]", (0.0, 1)),
        ("[[A<<B]]", (0.0, 3)),
        ("[[B<A]]", (1.0, 1)),
        ("[[B<<A]]", (1.0, 3)),
        ("[[B=A]]", (0.5, 1)),
        ("[[A>B]] [[B]]", "unknown_mark"),
    ],
)
def test_the_last_mark_of_arena_hard_v2_counts(said: str, expected: tuple[float, int] | str) -> None:
    assert told(ArenaHardV2.verdict(said)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Rating: [[5]]", 5.0),
        ("Rating: [[7.5]]", 7.5),
        ("Rating: [[8.]]", 8.0),
        ("[[3]] then [[9]]", 3.0),
        ("Rating: [6]", 6.0),
        ("See [2]. Rating: [[9]]", 9.0),
        ("[[10]]", 10.0),
        ("[[1]]", 1.0),
        ("[[12]]", "out_of_range"),
        ("[[0]]", "out_of_range"),
        ("[[10.5]]", "out_of_range"),
        ("[[8/10]]", "no_mark"),
        ("[[rating]]", "no_mark"),
        ("[[-3]]", "no_mark"),
        ("eight", "no_mark"),
        ("", "no_mark"),
    ],
)
def test_a_rating_is_the_first_number_in_brackets(said: str, expected: float | str) -> None:
    verdict = rating(JudgeReply(said))
    assert (verdict.value if verdict.reason is None else verdict.reason) == expected


def test_a_reply_that_was_cut_off_before_its_verdict_says_so() -> None:
    """A judge that spends its tokens on reasoning is told from one that forgets the mark."""
    assert rating(JudgeReply("Let me think", cut_off=True)).reason == "cut_off"
    assert rating(JudgeReply("[[4]] because", cut_off=True)).value == 4  # the official parser reads it too


@given(st.text())
def test_no_text_breaks_a_parser_and_every_reason_is_explained(said: str) -> None:
    for verdict in (ArenaHardV01.verdict(said), ArenaHardV2.verdict(said), rating(JudgeReply(said))):
        assert (verdict.value is None) == (verdict.reason in UNREADABLE)


def test_a_missing_verdict_is_never_turned_into_a_win() -> None:
    """Elsewhere -1 for unreadable became 2, the model's win, when the order was turned back: 1 - (-1)."""
    with pytest.raises(ValueError, match="no win and no loss"):
        won("model_first", JudgeVerdict.unreadable("no_mark"))
    for value, reason in ((None, None), (0.5, "no_mark"), (math.nan, None), (math.inf, None)):
        with pytest.raises(ValueError, match="finite value or a reason"):
            JudgeVerdict(value, reason=reason)


def test_above_the_allowed_share_of_missing_verdicts_there_is_no_score() -> None:
    verdicts = [JudgeVerdict(1.0)] * 98 + [JudgeVerdict.unreadable("no_mark")] * 2
    assert missing_verdicts(verdicts, 0.02) == {"no_mark": 2}
    with pytest.raises(EvaluationError, match=r"2 of 100 verdicts are missing.*0\.01.*2 no_mark"):
        missing_verdicts(verdicts, 0.01)
    with pytest.raises(EvaluationError, match="nothing was judged"):
        missing_verdicts([], 0.5)
