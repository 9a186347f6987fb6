"""Asked for the better rating the better answer of a pair wins, asked for the other rating the other answer does."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mixdpo_ray.pairs.augment import asked_for, reward_augmented
from mixdpo_ray.pairs.convert import Converter
from mixdpo_ray.pairs.pair import Message, Pair
from mixdpo_ray.pairs.pairing import PairSettings
from mixdpo_ray.pairs.reading import RawRow
from tests.pairs.samples import BAD, GOOD, QUESTION, data
from tests.pairs.small_tokenizers import small_tokenizer

PAIR = Pair((Message(role="user", content=QUESTION),), GOOD, BAD, 4.5, "test", 8.5, 4.0)


def test_both_copies_of_a_pair() -> None:
    made = reward_augmented(PAIR)
    assert isinstance(made, list)
    high, low = made
    assert (high.chosen, high.rejected, high.score_chosen, high.score_rejected) == (GOOD, BAD, 8.5, 4.0)
    assert (low.chosen, low.rejected, low.score_chosen, low.score_rejected) == (BAD, GOOD, 4.0, 8.5)
    assert [one.margin for one in made] == [4.5, 4.5]
    assert [one.prompt[0]["role"] for one in made] == ["system", "system"]
    assert "rated 8.5," in high.prompt[0]["content"]
    assert "rated 4," in low.prompt[0]["content"]
    assert high.prompt[1:] == low.prompt[1:] == PAIR.prompt


def test_the_copies_are_pairs_of_their_own_that_are_held_out_together() -> None:
    made = reward_augmented(PAIR)
    assert isinstance(made, list)
    assert len({PAIR.pair_id, *(one.pair_id for one in made)}) == 3
    assert {one.prompt_id for one in made} == {PAIR.prompt_id}


def test_a_system_prompt_of_ones_own_stays_behind_the_goal() -> None:
    own = (Message(role="system", content="Be brief."), *PAIR.prompt)
    system, *turns = asked_for(own, 7)
    assert system["content"].startswith("Answer so that your reply would be rated 7,")
    assert system["content"].endswith("\n\nBe brief.")
    assert tuple(turns) == PAIR.prompt


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ((6.0, 6.0), "tie_not_augmented"),
        ((6.0, math.nan), "no_ratings_to_state"),
        ((math.nan, 1.0), "no_ratings_to_state"),
    ],
)
def test_ties_and_unknown_ratings_give_no_copies(scores: tuple[float, float], reason: str) -> None:
    pair = Pair(PAIR.prompt, GOOD, BAD, 0.0, "test", *scores)
    assert reward_augmented(pair) == reason


def test_every_candidate_becomes_two_rows_or_one_refusal() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": f"{QUESTION} {number}", "chosen": GOOD, "rejected": BAD, "score_chosen": 8, "score_rejected": score}
        for number, score in enumerate([4, 8, 5])
    ]
    rows.append({"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "margin": 2.0})
    converter = Converter(data(pair=PairSettings(augment="reward")), "plain", small_tokenizer())
    done = converter.convert([RawRow("a", number, row) for number, row in enumerate(rows)])
    assert [(one.row, one.reason) for one in done.refused] == [(1, "tie_not_augmented"), (3, "no_ratings_to_state")]
    assert done.rows_in == 6
    assert done.notes == {"augmented": 4}
    places = list(zip(*(done.kept[name].to_pylist() for name in ("row", "candidate")), strict=True))
    assert places == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert done.kept["margin"].to_pylist() == [4.0, 4.0, 3.0, 3.0]
    assert done.kept["chosen_ids"][0] == done.kept["rejected_ids"][1]
    assert len(set(done.kept["prompt_id"].to_pylist())) == 2
    assert len(set(done.kept["pair_id"].to_pylist())) == 4
