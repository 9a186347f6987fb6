"""Each way to make a pair of rated answers, on answers for which the pair can be seen."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixdpo_ray.errors import FormatError
from mixdpo_ray.pairs.checking import check_pair
from mixdpo_ray.pairs.columns import find_format
from mixdpo_ray.pairs.edit_distance import edit_distance
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.pair import Candidate, Pair, content_hash, user
from mixdpo_ray.pairs.pairing import PAIRINGS, Answers, PairSettings, paired
from mixdpo_ray.pairs.ratings import RatedAnswer
from tests.pairs.samples import QUESTION, SAMPLES, completion, data

law = settings(max_examples=80, deadline=None)
TEXTS = {"a b c d": 9.0, "a b c e": 7.0, "a b c d e f g h": 4.0, "w x y z v u t s": 2.0}


def made(rule: str, rated: dict[str, Any] = TEXTS, **options: Any) -> tuple[str, str, float]:
    """Chosen, rejected and the difference of their scores."""
    answers = [RatedAnswer(text, score) for text, score in rated.items()]
    candidate = paired(Answers([user(QUESTION)], answers, "test"), PairSettings(rule=rule, **options))
    assert isinstance(candidate, Candidate)
    texts = [conversation[-1]["content"] for conversation in (candidate.chosen, candidate.rejected)]
    assert candidate.chosen[:-1] == candidate.rejected[:-1] == [user(QUESTION)]
    return texts[0], texts[1], candidate.score_chosen - candidate.score_rejected


def test_max_min_takes_the_ends_and_max_max_the_best_two() -> None:
    assert made("max_min") == ("a b c d", "w x y z v u t s", 7.0)
    assert made("max_max") == ("a b c d", "a b c e", 2.0)


@pytest.mark.parametrize(("target", "rejected"), [(0.0, 7.0), (2.9, 7.0), (4.0, 4.0), (6.5, 2.0), (50.0, 2.0)])
def test_a_controlled_margin_is_the_closest_one_to_its_target(target: float, rejected: float) -> None:
    assert made("margin_controlled", margins=(target,))[2] == 9.0 - rejected


def test_targets_are_drawn_for_each_prompt_in_their_shares() -> None:
    settings = PairSettings(rule="margin_controlled", margins=(2.0, 7.0, 7.0, 7.0))
    answers = [RatedAnswer(text, score) for text, score in TEXTS.items()]
    made = [paired(Answers([user(f"{number}")], answers, "test"), settings) for number in range(400)]
    margins = [one.score_chosen - one.score_rejected for one in made if isinstance(one, Candidate)]
    assert set(margins) == {2.0, 7.0}
    assert margins.count(2.0) == pytest.approx(100, abs=40)


def test_dcrm_takes_much_margin_for_little_difference() -> None:
    """(sigmoid(margin) - 1/2) / (distance + 1).

    By distance: 1 between the best two (margin 2: 0.1904); 4 from the best to the third (margin 5: 0.0987); 4 from the
    second to the third, which has d where it has e and 4 more words: 5 (margin 3: 0.0754); 8 to the last (margin 7:
    0.0555). With an epsilon so large that distances no longer matter, the largest margin wins.
    """
    assert made("dcrm") == ("a b c d", "a b c e", 2.0)
    assert made("dcrm", epsilon=1e6) == ("a b c d", "w x y z v u t s", 7.0)
    assert made("dcrm", {"a b": 1.0, "a c": 1.0, "x y": 1.0})[2] == 0.0


def test_dcrm_of_four_answers_is_the_best_of_all_sixteen_pairs() -> None:
    draw = random.Random(3)
    for _ in range(30):
        rated = {" ".join(draw.choices("abc", k=draw.randint(1, 6))): float(draw.randint(1, 10)) for _ in range(4)}
        if len(rated) < 2:
            continue
        worth = {
            (1 / (1 + math.exp(rated[worse] - rated[better])) - 0.5)
            / (edit_distance(better.split(), worse.split()) + 1)
            for better in rated
            for worse in rated
            if better != worse
        }
        chosen, rejected, margin = made("dcrm", rated)
        mine = (1 / (1 + math.exp(-margin)) - 0.5) / (edit_distance(chosen.split(), rejected.split()) + 1)
        assert mine == pytest.approx(max(worth))


def test_the_default_of_ultrafeedback_is_the_best_against_the_first_of_the_others_by_hash() -> None:
    """The ids of pairs that were made before there was a choice."""
    row = {"instruction": QUESTION, "completions": [completion(text, score) for text, score in TEXTS.items()]}
    (found,) = FORMATS["ultrafeedback"].pairs([row], PairSettings())
    assert isinstance(found, Candidate)
    pair = check_pair(found, data())
    assert isinstance(pair, Pair)
    key = repr([user(QUESTION)])
    others = sorted((text for text in TEXTS if text != "a b c d"), key=lambda text: content_hash([key, repr(text)]))
    assert pair.pair_id == content_hash(["user", QUESTION, "a b c d", others[0]])
    (named,) = FORMATS["ultrafeedback"].pairs([row], PairSettings(rule="best_vs_random"))
    (other_name,) = FORMATS["ultrafeedback"].pairs([row], PairSettings(rule="max_random"))
    assert found == named == other_name


SCORES = st.lists(st.sampled_from([1.0, 2.0, 2.5, 8.0]), min_size=2, max_size=5)


@law
@pytest.mark.parametrize("rule", PAIRINGS)
@given(scores=SCORES, draw=st.randoms(use_true_random=False))
def test_the_chosen_answer_is_rated_no_lower_and_the_order_of_the_answers_does_not_matter(
    rule: str, scores: list[float], draw: random.Random
) -> None:
    rated = {f"answer {number} {'x ' * number}": score for number, score in enumerate(scores)}
    options = {"margins": (1.0, 3.0)} if rule == "margin_controlled" else {}
    one = made(rule, rated, **options)
    shuffled = list(rated.items())
    draw.shuffle(shuffled)
    assert made(rule, dict(shuffled), **options) == one
    assert one[0] != one[1]
    assert one[2] >= 0
    if rule != "dcrm":
        assert rated[one[0]] == max(scores)


@pytest.mark.parametrize("rule", PAIRINGS)
def test_answers_without_a_usable_rating_take_no_part(rule: str) -> None:
    options = {"margins": (1.0,)} if rule == "margin_controlled" else {}
    rated: dict[str, Any] = {"good": 5, "none": None, "bad": 1.0, "nan": math.nan, "text": "9", "inf": math.inf}
    assert made(rule, rated, **options) == ("good", "bad", 4.0)
    lonely = Answers([user(QUESTION)], [RatedAnswer("good", 5), RatedAnswer(None, 7), RatedAnswer("x", None)], "test")
    assert paired(lonely, PairSettings(rule=rule, **options)) == "too_few_rated_answers"


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if format.answers is not None])
def test_every_format_of_several_answers_gives_the_largest_margin_that_it_holds(name: str) -> None:
    (found,) = FORMATS[name].pairs(SAMPLES[name].rows, PairSettings(rule="max_min"))
    assert isinstance(found, Candidate)
    pair = check_pair(found, data())
    assert isinstance(pair, Pair)
    assert tuple(message["content"] for message in pair.prompt) == SAMPLES[name].prompt
    expected = {"simpo_ultrafeedback": ("Honey.", "Buzz.", 0.72)}
    usual = (SAMPLES[name].chosen, SAMPLES[name].rejected, SAMPLES[name].margin)
    chosen, rejected, margin = expected.get(name, usual)
    assert (pair.chosen, pair.rejected) == (chosen, rejected)
    assert pair.margin == pytest.approx(margin)


def test_broken_rows_are_refused_under_every_rule() -> None:
    rows: dict[str, list[dict[str, Any]]] = {
        "ultrafeedback": [{"instruction": QUESTION, "completions": "none"}],
        "simpo_ultrafeedback": [{"all_generated_responses": ["a"], "all_rm_scores": [1.0, 2.0], "chosen": 7}],
        "helpsteer2": [{"prompt": QUESTION, "response": "one", "helpfulness": 3}],
    }
    for name, broken in rows.items():
        (found,) = FORMATS[name].pairs(broken, PairSettings(rule="max_min"))
        assert found == ("too_few_rated_answers" if name == "helpsteer2" else "malformed_row")


def test_a_rule_for_a_source_that_holds_pairs_is_refused() -> None:
    asked = data(pair=PairSettings(rule="max_min"))
    with pytest.raises(FormatError, match=r"format plain holds pairs: leave it out \(.*: simpo_ultrafeedback, ultraf"):
        find_format(asked, ["prompt", "chosen", "rejected", "margin"])
    assert find_format(asked, ["instruction", "completions"]) == "ultrafeedback"
