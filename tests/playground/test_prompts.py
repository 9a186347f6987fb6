import random

import pytest

from mixdpo_ray.pairs.edit_distance import edit_distance
from mixdpo_ray.playground.prompts import LONGEST_ANSWER, OPERATIONS, Prompt, draw_prompts, quality


@pytest.mark.parametrize(
    ("prompt", "ideal"),
    [
        ("sort d a c a", "a a c d"),
        ("reverse d a c", "c a d"),
        ("double d a", "d d a a"),
        ("swap d a c b", "a d b c"),
        ("swap d a c", "a d c"),  # the last one has no neighbour
    ],
)
def test_each_operation_has_one_ideal_answer(prompt: str, ideal: str) -> None:
    assert Prompt.of_text(prompt).ideal == ideal.split()
    assert Prompt.of_text(prompt).text == prompt


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("abc", "abc", 0),
        ("abc", "abd", 1),
        ("abc", "ab", 1),
        ("abc", "xabc", 1),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
    ],
)
def test_edit_distance_counts_insertions_deletions_and_replacements(a: str, b: str, distance: int) -> None:
    assert edit_distance(a, b) == edit_distance(b, a) == distance


def test_quality_falls_from_ten_by_the_share_of_edits() -> None:
    """The ideal answer is "a b c", so each edit costs a third of the nine points between 10 and 1."""
    prompt = Prompt.of_text("sort c a b")
    answers = ["a b c", "a b d", "a d e", "d e f", "", "d e f g h i"]
    assert [quality(prompt, answer) for answer in answers] == pytest.approx([10, 7, 4, 1, 1, 1])


def test_drawn_prompts_differ_from_each_other_and_from_those_taken() -> None:
    first = draw_prompts(random.Random(0), 500)
    second = draw_prompts(random.Random(0), 500, set(first))
    assert len({*first, *second}) == 1000
    assert {prompt.operation for prompt in first} == set(OPERATIONS)
    assert max(len(prompt.ideal) for prompt in first) == LONGEST_ANSWER
