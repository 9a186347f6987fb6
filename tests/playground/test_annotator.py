import random
from pathlib import Path

import pytest

from mixdpo_ray.pairs.columns import formats_of
from mixdpo_ray.playground.annotator import RatedPair, rate, rate_pairs, read_jsonl
from mixdpo_ray.playground.prompts import Prompt
from mixdpo_ray.playground.sample import write_pairs
from mixdpo_ray.playground.settings import PlaygroundSettings

PROMPT = Prompt.of_text("sort c a b")


def test_without_noise_a_rating_is_the_quality_drawn_towards_the_top_of_the_scale() -> None:
    """Quality 4 is 6 below the best; at 0.5 rating points per point that makes 10 - 3."""
    settings = PlaygroundSettings(spread=0.5, noise=0)
    assert rate(random.Random(0), 4.0, settings) == 7.0
    assert rate(random.Random(0), 10.0, settings) == 10.0


def test_ratings_lie_on_a_grid_of_half_points_within_the_scale() -> None:
    draw = random.Random(0)
    ratings = {rate(draw, 5.0, PlaygroundSettings(spread=1, noise=4)) for _ in range(2000)}
    assert ratings == {half / 2 for half in range(2, 21)}


def test_the_best_rated_answer_is_chosen_and_another_one_rejected() -> None:
    settings = PlaygroundSettings(spread=1, noise=0)
    answers = [["a d e", "a b c", "a b d"]] * 50
    pairs = rate_pairs(random.Random(0), [PROMPT] * 50, answers, settings)
    assert {pair.chosen for pair in pairs} == {"a b c"}
    assert {pair.rejected: pair.margin for pair in pairs} == {"a d e": 6.0, "a b d": 3.0}


def test_answers_all_alike_or_empty_give_no_pair() -> None:
    answers = [["a b", "a b"], ["", "a b"], ["", ""]]
    assert rate_pairs(random.Random(0), [PROMPT] * 3, answers, PlaygroundSettings()) == []


@pytest.mark.parametrize(
    ("chosen", "rejected", "right"), [("a b c", "a", 1), ("a", "a b c", 0), ("a b d", "a b e", 0.5)]
)
def test_a_label_is_right_where_the_chosen_answer_is_truly_better(chosen: str, rejected: str, right: float) -> None:
    assert RatedPair(PROMPT, chosen, rejected, 8.0, 7.5).right == right


def test_the_rows_are_ultrafeedback_binarized_and_read_back(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 20, seed=3)
    assert read_jsonl(tmp_path / "pairs.jsonl") == pairs
    assert formats_of(list(pairs[0].row())) == ["ultrafeedback_binarized"]
    assert pairs[0].row()["chosen"][0] == {"role": "user", "content": pairs[0].prompt.text}


def test_small_margins_are_often_wrong_and_large_ones_hardly_ever(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 3000, seed=0)

    def right(low: float, high: float) -> float:
        members = [pair.right for pair in pairs if low <= pair.margin <= high]
        return sum(members) / len(members)

    assert right(0, 0) == pytest.approx(0.5, abs=0.1)
    assert 0.55 < right(0.5, 0.5) < 0.75
    assert right(2.5, 10) > 0.93


def test_a_tenth_are_ties_and_a_tenth_the_wrong_way_round(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl", 3000, seed=0)
    assert sum(pair.margin == 0 for pair in pairs) / 3000 == pytest.approx(0.1, abs=0.03)
    assert sum(pair.right == 0 for pair in pairs) / 3000 == pytest.approx(0.1, abs=0.03)
