import math
from typing import Any

import numpy as np
import pytest

from mixdpo_ray.pairs.checking import FATAL, REASONS, check_pair, is_fatal
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.margin_scale import quantile_margins, resolve_scale
from mixdpo_ray.pairs.pair import Candidate, Message, Pair, content_hash
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings
from tests.pairs.samples import BAD, GOOD, QUESTION, conversation, data


def candidate(margin: Any = 1.0, chosen: Any = None, rejected: Any = None, **scores: Any) -> Candidate:
    chosen, rejected = chosen or conversation(QUESTION, GOOD), rejected or conversation(QUESTION, BAD)
    return Candidate(chosen, rejected, "test", margin=margin, **scores)


def kept(one: Candidate, **settings: Any) -> Pair:
    pair = check_pair(one, data(**settings))
    assert isinstance(pair, Pair), pair
    return pair


@pytest.mark.parametrize(
    "turns",
    [
        conversation(QUESTION),  # ends with the user
        conversation(QUESTION, GOOD)[1:],  # begins with the assistant
        [*conversation(QUESTION), *conversation(QUESTION, GOOD)],  # two users in a row
        [{"role": "tool", "content": "x"}, *conversation(QUESTION, GOOD)],
        [*conversation(QUESTION, GOOD), {"role": "system", "content": "x"}],
        [{"role": "user", "content": 7}, {"role": "assistant", "content": GOOD}],
        [{"role": "user"}, {"role": "assistant", "content": GOOD}],
        [{"role": ["user"], "content": QUESTION}, {"role": "assistant", "content": GOOD}],
        ["user", "assistant"],
        "a text",
    ],
)
def test_turns_that_are_no_conversation_are_refused(turns: Any) -> None:
    assert check_pair(candidate(chosen=turns, rejected=turns), data()) == "bad_turns"


def test_a_system_turn_and_several_rounds_are_fine() -> None:
    turns = [{"role": "system", "content": "Be brief."}, *conversation("Hello", "Hi!", QUESTION)]
    answers = ([*turns, {"role": "assistant", "content": text}] for text in (GOOD, BAD))
    assert len(kept(candidate(1.0, *answers)).prompt) == 4


def test_further_keys_of_a_message_are_left_out() -> None:
    with_extras = [{**turn, "id": i, "model": "m"} for i, turn in enumerate(conversation(QUESTION, GOOD))]
    assert kept(candidate(chosen=with_extras)).prompt == (Message(role="user", content=QUESTION),)


def test_a_missing_or_nan_score_follows_its_policy() -> None:
    for missing, reason in ((None, "missing_score"), (math.nan, "nan_score")):
        one = candidate(None, score_chosen=missing, score_rejected=2.0)
        assert check_pair(one, data()) == reason
        assert is_fatal(reason, data(missing_score="error"))
        assert not is_fatal(reason, data())
        hard = kept(one, missing_score="hard")
        assert (hard.margin, hard.notes) == (0.0, ("missing_score_made_hard",))
        assert math.isnan(hard.score_chosen)


def test_infinite_and_other_scores_are_refused_whatever_the_policy() -> None:
    for value, reason in (
        (math.inf, "infinite_score"),
        (-math.inf, "infinite_score"),
        (10**400, "infinite_score"),
        ("7", "bad_score"),
        (True, "bad_score"),
        ([1], "bad_score"),
    ):
        assert check_pair(candidate(value), data(missing_score="hard")) == reason
    assert check_pair(candidate(None, score_chosen=1e308, score_rejected=-1e308), data()) == "infinite_score"


def test_a_negative_margin_follows_its_policy() -> None:
    one = candidate(None, score_chosen=2.0, score_rejected=5.0)
    assert check_pair(one, data()) == "negative_margin"
    assert is_fatal("negative_margin", data())
    assert not is_fatal("negative_margin", data(negative_margin="drop"))
    hard = kept(one, negative_margin="hard")
    assert (hard.chosen, hard.margin, hard.notes) == (GOOD, 0.0, ("negative_margin_made_hard",))
    swapped = kept(one, negative_margin="swap")
    assert (swapped.chosen, swapped.rejected, swapped.margin, swapped.notes) == (BAD, GOOD, 3.0, ("swapped",))
    assert (swapped.score_chosen, swapped.score_rejected) == (5.0, 2.0)


def test_a_tie_is_kept() -> None:
    assert kept(candidate(None, score_chosen=7, score_rejected=7)).margin == 0.0


def test_row_size_is_counted_in_bytes_of_all_texts() -> None:
    size = len((QUESTION + GOOD + BAD).encode())
    assert isinstance(check_pair(candidate(), data(source=SourceSettings(path="x", max_row_bytes=size))), Pair)
    assert check_pair(candidate(), data(source=SourceSettings(path="x", max_row_bytes=size - 1))) == "oversized_row"


def test_the_pair_id_depends_on_the_texts_and_their_places_and_on_nothing_else() -> None:
    one = kept(candidate(1.0))
    assert one.pair_id == kept(candidate(2.5)).pair_id
    assert len(one.pair_id) == 32
    assert int(one.pair_id, 16) >= 0
    reversed_answers = candidate(chosen=conversation(QUESTION, BAD), rejected=conversation(QUESTION, GOOD))
    assert one.pair_id != kept(reversed_answers).pair_id
    other = kept(candidate(chosen=conversation(QUESTION, "Wax.")))
    assert (other.pair_id != one.pair_id, other.prompt_id == one.prompt_id) == (True, True)


def test_hashes_see_where_one_text_ends_and_the_next_begins() -> None:
    assert content_hash(["ab", "c"]) != content_hash(["a", "bc"])
    assert content_hash(['a","b']) != content_hash(["a", "b"])


def test_every_reason_is_explained_and_every_fatal_one_is_a_reason_with_a_setting() -> None:
    assert all(REASONS.values())
    assert REASONS.keys() >= FATAL.keys()
    assert DataSettings.model_fields.keys() >= {setting for setting, _ in FATAL.values()}


def test_margin_scale_auto_means_range_only_where_scales_are_mixed() -> None:
    auto = data(margin_scale="auto")
    assert resolve_scale(auto, FORMATS["dpo_mix_7k"]).margin_scale == "range"
    assert resolve_scale(auto, FORMATS["ultrafeedback_binarized"]).margin_scale == "none"
    assert resolve_scale(data(margin_scale="quantile"), FORMATS["dpo_mix_7k"]).margin_scale == "quantile"


def test_quantiles_are_shares_of_smaller_margins_within_the_source() -> None:
    margins = np.array([0.0, 4.0, 2.0, 0.0, 0.1, 0.3])
    sources = ["stars", "stars", "stars", "stars", "shares", "shares"]
    np.testing.assert_array_equal(quantile_margins(margins, sources), [0.0, 0.75, 0.5, 0.0, 0.0, 0.5])
    assert len(quantile_margins(np.zeros(0), [])) == 0
