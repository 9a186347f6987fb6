"""When rounds end, which of them is the best, and what is shown of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixdpo_ray.errors import StorageError
from mixdpo_ray.iteration.page import rounds_page
from mixdpo_ray.iteration.picture import rounds_picture
from mixdpo_ray.iteration.results import RatedRound, RoundResult, best_round
from mixdpo_ray.iteration.table import outcome_text, rounds_table
from mixdpo_ray.recipe.file import load_recipe
from tests.iteration.made_rounds import made_round

RECIPE = load_recipe(str(Path(__file__).parents[2] / "jobs/recipes/playground-iterate.yaml"), ["output.name=made"])


@pytest.mark.parametrize(("win_rate", "gains"), [(0.5001, True), (0.5, False), (0.499, False)])
def test_a_round_that_wins_no_more_than_half_is_the_last(win_rate: float, gains: bool) -> None:
    assert made_round(1, win_rate).gains == gains


def test_the_best_round_wins_most_over_the_first_model_of_those_that_beat_the_one_before() -> None:
    assert best_round([made_round(1, 0.8, 0.8), made_round(2, 0.55, 0.85), made_round(3, 0.5, 0.9)]) == 2
    assert best_round([made_round(1, 0.8, 0.8), made_round(2, 0.52, 0.78), made_round(3, 0.4, 0.7)]) == 1
    assert best_round([made_round(1, 0.4)]) == 0
    assert best_round([]) == 0


def test_a_round_is_read_as_it_was_written_and_a_damaged_one_is_named() -> None:
    one = made_round(2, 0.55)
    assert RoundResult.from_json(one.to_json(), "round.json") == one
    with pytest.raises(StorageError, match=r"^out/round.json is damaged .*remove it"):
        RoundResult.from_json(one.to_json()[:50], "out/round.json")


def test_the_table_and_its_sentence_tell_what_came_of_the_rounds() -> None:
    rounds = [made_round(1, 0.6), made_round(2, 0.48)]
    assert outcome_text(RECIPE, rounds) == (
        "made: 2 of 3 rounds, ended by round 2, which does not beat the one before it; the best is that of round 1, "
        "60.0% (56.0% to 64.0%) over the first model"
    )
    lines = rounds_table(rounds)
    assert [cell.strip() for cell in lines[3].strip("|").split("|")] == [
        "2", "48.0% (44.0% to 52.0%)", "60.0% (56.0% to 64.0%)", "22.0", "6.50", "400", "80", "9", "16", "1.25",
        "0.750", "3",
    ]  # fmt: skip
    assert outcome_text(RECIPE, []) == "made: no round is done"
    assert "no round beats the first model" in outcome_text(RECIPE, [made_round(1, 0.4, 0.4)])


def test_the_page_opens_offline_and_shows_the_rounds_their_doubt_and_what_gave_no_pair() -> None:
    page = rounds_page(RECIPE, [made_round(1, 0.52), made_round(2, 0.48)], "out/iterations/made", "best/model").decode()
    assert "Round 1 is the best" in page
    assert "Round 2 ended it: its model wins 48.0% of the prompts over the one before it, which may be chance." in page
    assert "Round 1 beats the one before it by less than its interval" in page
    assert page.count('class="wins"') == 1
    assert "all_answers_equal" not in page  # in words
    assert "default-src 'none'" in page
    assert "&lt;b&gt;a judge" in page
    assert set(re.findall(r'(?:src|href)="(data:[^;,]*|[^"]*)', page)) == {"data:image/svg+xml", "data:"}


def test_pages_and_pictures_can_be_drawn_before_the_first_round() -> None:
    assert rounds_picture([], "png").startswith(b"\x89PNG")
    assert b"No round yet" in rounds_page(RECIPE, [], "out", "base")


def test_ratings_of_a_round_are_those_that_its_training_began_with(tmp_path: Path) -> None:
    """Where something else is asked for, or what was written of them has gone, they are made again."""
    written, path = tmp_path / "rated.jsonl", str(tmp_path / "rated.json")
    written.touch()
    rated = RatedRound("asked", str(written), 10, 40, {"truth": 6.5}, {"all_scores_tie": 2})
    assert RatedRound.read(path, "asked") is None
    Path(path).write_bytes(rated.to_json())
    assert RatedRound.read(path, "asked") == rated
    assert RatedRound.read(path, "another") is None
    written.unlink()
    assert RatedRound.read(path, "asked") is None
