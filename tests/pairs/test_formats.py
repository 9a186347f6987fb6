from typing import Any

import pytest

from mixdpo_ray.pairs.checking import REASONS, check_pair
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.pair import Candidate, Pair
from mixdpo_ray.pairs.ratings import overall_score
from tests.pairs.samples import BAD, GOOD, QUESTION, SAMPLES, completion, conversation, data


def candidate(name: str, *rows: dict[str, Any]) -> Candidate:
    (found,) = FORMATS[name].candidates(*rows)
    assert isinstance(found, Candidate), found
    return found


def refusal(name: str, *rows: dict[str, Any]) -> str:
    (found,) = FORMATS[name].candidates(*rows)
    assert isinstance(found, str)
    assert found in REASONS
    return found


def checked(one: Candidate, **settings: Any) -> Pair:
    pair = check_pair(one, data(**settings))
    assert isinstance(pair, Pair), pair
    return pair


def test_every_format_has_a_sample_row() -> None:
    assert SAMPLES.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_the_sample_of_each_format_becomes_its_pair(name: str) -> None:
    sample = SAMPLES[name]
    pair = checked(candidate(name, *sample.rows))
    assert tuple(message["content"] for message in pair.prompt) == sample.prompt
    assert (pair.chosen, pair.rejected) == (sample.chosen, sample.rejected)
    assert pair.margin == pytest.approx(sample.margin)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_with_nothing_in_its_columns_is_refused_and_breaks_nothing(name: str) -> None:
    nothings: list[Any] = [None, "", [], {}, 7, [None]]
    for nothing in nothings:
        row = dict.fromkeys(SAMPLES[name].rows[0], nothing)
        for found in FORMATS[name].candidates(row):
            reason = check_pair(found, data()) if isinstance(found, Candidate) else found
            assert isinstance(reason, str)
            assert reason in REASONS


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        (QUESTION, GOOD, BAD),
        (conversation(QUESTION), GOOD, BAD),
        (QUESTION, conversation(QUESTION, GOOD), conversation(QUESTION, BAD)),
        (None, conversation(QUESTION, GOOD), conversation(QUESTION, BAD)),
        (
            conversation(QUESTION),
            [{"role": "assistant", "content": GOOD}],
            [{"role": "assistant", "content": BAD}],
        ),
    ],
)
def test_plain_answers_are_texts_or_messages_with_or_without_prompt(prompt: Any, chosen: Any, rejected: Any) -> None:
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "score_chosen": 8, "score_rejected": 7.5}
    pair = checked(candidate("plain", row))
    assert (pair.prompt, pair.chosen, pair.rejected) == (({"role": "user", "content": QUESTION},), GOOD, BAD)
    assert (pair.score_chosen, pair.score_rejected, pair.margin) == (8.0, 7.5, 0.5)


def test_a_margin_counts_more_than_the_difference_of_scores() -> None:
    row = {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "score_chosen": 8, "score_rejected": 7, "margin": 3}
    assert checked(candidate("plain", row)).margin == 3.0


@pytest.mark.parametrize(
    ("dataset", "width"),
    [
        ("argilla/distilabel-capybara-dpo-7k-binarized", 4),
        ("argilla/distilabel-intel-orca-dpo-pairs", 9),
        ("argilla/ultrafeedback-binarized-preferences-cleaned", 4),
    ],
)
def test_dpo_mix_margins_are_shares_of_their_sources_rating_scale(dataset: str, width: int) -> None:
    row = {**SAMPLES["dpo_mix_7k"].rows[0], "dataset": dataset}
    assert checked(candidate("dpo_mix_7k", row), margin_scale="range").margin == pytest.approx(3 / width)
    assert checked(candidate("dpo_mix_7k", row), margin_scale={dataset: 2.0}).margin == pytest.approx(1.5)


def test_a_source_whose_scale_is_unknown_is_refused_where_the_scale_is_needed() -> None:
    unknown = candidate("dpo_mix_7k", {**SAMPLES["dpo_mix_7k"].rows[0], "dataset": "something new"})
    assert check_pair(unknown, data(margin_scale="range")) == "unknown_scale"
    assert check_pair(unknown, data(margin_scale={"other": 1.0})) == "unknown_scale"
    assert checked(unknown, margin_scale="none").margin == 3.0


def test_simpo_scores_that_cannot_be_found_are_missing() -> None:
    row = {**SAMPLES["simpo_ultrafeedback"].rows[0], "chosen": conversation(QUESTION, "Never generated.")}
    assert check_pair(candidate("simpo_ultrafeedback", row), data()) == "missing_score"


@pytest.mark.parametrize(
    ("ratings", "score"),
    [
        (("1", "2", "1", "2"), 1.0),  # mean 1.5: a 1 that was read as 10
        (("2", "2", "2", "2"), 1.0),
        (("2", "3", "2", "2"), None),  # 2.25: nobody knows
        (("4", "4", "4", "4"), None),
        (("5", "4", "4", "4"), 10.0),  # 4.25: a real 10
        (("N/A", "N/A", "1", "1"), 1.0),  # aspects that were not rated do not count
        (("N/A", "N/A", "N/A", "N/A"), None),
    ],
)
def test_a_score_of_10_is_believed_only_if_the_aspects_agree(ratings: tuple[str, ...], score: float | None) -> None:
    assert overall_score(completion(GOOD, 10.0, *ratings)) == score


def test_other_scores_are_left_alone_and_the_fine_grained_score_stands_in_for_missing_aspects() -> None:
    assert overall_score(completion(GOOD, 9.5, "1", "1", "1", "1")) == 9.5
    assert overall_score({"overall_score": 10.0, "fine-grained_score": 4.75}) == 10.0
    assert overall_score({"overall_score": 10.0, "fine-grained_score": 1.25}) == 1.0


def test_the_score_10_bug_no_longer_makes_the_worst_answer_the_chosen_one() -> None:
    row = {
        "instruction": QUESTION,
        "completions": [completion(BAD, 10.0, "1", "1", "1", "2"), completion(GOOD, 7.0, "4", "4", "4", "4")],
    }
    pair = checked(candidate("ultrafeedback", row))
    assert (pair.chosen, pair.rejected, pair.margin) == (GOOD, BAD, 6.0)


def test_ultrafeedback_takes_the_best_against_a_random_other_whatever_the_order_of_the_answers() -> None:
    completions = [completion(f"answer {score}", score) for score in (3.0, 8.0, 5.0, 4.0)]
    rejected = set()
    for number in range(40):
        row = {"instruction": f"prompt {number}", "completions": completions}
        pair = checked(candidate("ultrafeedback", row))
        again = checked(candidate("ultrafeedback", {**row, "completions": completions[::-1]}))
        assert pair.chosen == "answer 8.0"
        assert pair == again
        rejected.add(pair.rejected)
    assert rejected == {"answer 3.0", "answer 4.0", "answer 5.0"}


def test_answers_without_a_rating_take_no_part_and_fewer_than_two_others_are_no_pair() -> None:
    unrated = completion("Unrated.", None)
    row = {"instruction": QUESTION, "completions": [unrated, completion(GOOD, 8.0), completion(BAD, 2.0)]}
    assert checked(candidate("ultrafeedback", row)).margin == 6.0
    assert refusal("ultrafeedback", {**row, "completions": [unrated, completion(GOOD, 8.0)]}) == "too_few_rated_answers"
    assert refusal("helpsteer2", SAMPLES["helpsteer2"].rows[0]) == "too_few_rated_answers"


def test_equally_helpful_responses_are_a_tie() -> None:
    rows = [{**row, "helpfulness": 3} for row in SAMPLES["helpsteer2"].rows]
    assert checked(candidate("helpsteer2", *rows)).margin == 0.0


def test_helpsteer2_preference_is_signed_towards_the_second_response() -> None:
    row = {**SAMPLES["helpsteer2_preference"].rows[0], "preference_strength": -1}
    pair = checked(candidate("helpsteer2_preference", row))
    assert (pair.chosen, pair.rejected, pair.margin) == (BAD, GOOD, 1.0)


def test_a_helpsteer3_tie_is_decided_by_its_annotators_or_refused() -> None:
    row = {**SAMPLES["helpsteer3_preference"].rows[0], "overall_preference": 0}
    votes = [{"score": 1, "reasoning": "-"}, {"score": 1, "reasoning": "-"}, {"score": -1, "reasoning": "-"}]
    pair = checked(candidate("helpsteer3_preference", {**row, "individual_preference": votes}))
    assert (pair.chosen, pair.rejected, pair.margin) == (BAD, GOOD, 0.0)
    assert refusal("helpsteer3_preference", {**row, "individual_preference": votes[1:]}) == "undecided_tie"


def test_hh_transcripts_that_part_before_the_last_answer_are_refused() -> None:
    row = dict(SAMPLES["hh_rlhf"].rows[0])
    row["rejected"] = row["rejected"].replace("Hello", "Bye")
    assert check_pair(candidate("hh_rlhf", row), data()) == "answers_differ_before_last_turn"
    assert check_pair(candidate("hh_rlhf", {**row, "chosen": "no turns at all"}), data()) == "bad_turns"
