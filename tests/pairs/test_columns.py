"""The format that columns are of, and all that is wrong with them in one line, with what may be meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from pydantic import ValidationError

from mixdpo_ray.errors import FormatError
from mixdpo_ray.pairs.columns import columns_example, find_format, formats_of
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.settings import SourceSettings
from tests.pairs.samples import SAMPLES, data

OWN = ("question", "good", "bad", "good_rating", "bad_rating")
MAPPED = {
    "prompt": "question",
    "chosen": "good",
    "rejected": "bad",
    "score_chosen": "good_rating",
    "score_rejected": "bad_rating",
}
EXAMPLE = (
    '"data.source.columns={prompt: question, chosen: good, rejected: bad, score_chosen: good_rating, '
    'score_rejected: bad_rating}"'
)


def wrong_with(columns: Sequence[str], mapping: Mapping[str, str] | None = None) -> str:
    with pytest.raises(FormatError) as caught:
        find_format(data(source=SourceSettings(path="own.jsonl", columns=dict(mapping or {}))), columns)
    return str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_detected_from_its_sample_or_must_be_named(name: str) -> None:
    columns = list(SAMPLES[name].rows[0])
    if name == "hh_rlhf":  # with a margin beside them, two texts may also be plain ones
        assert formats_of(["chosen", "rejected"]) == ["hh_rlhf"]
        assert find_format(data(source=SourceSettings(path="x", format="hh_rlhf")), columns) == "hh_rlhf"
    else:
        assert find_format(data(), columns) == name


def test_columns_that_fit_no_format_are_named_with_the_way_out() -> None:
    with pytest.raises(FormatError, match=r"columns answer, question fit no format.*data\.source\.format"):
        find_format(data(), ["question", "answer"])


def test_columns_that_fit_two_formats_equally_are_not_guessed() -> None:
    both = FORMATS["helpsteer2_preference"].columns + FORMATS["helpsteer3_preference"].columns
    with pytest.raises(FormatError, match="helpsteer2_preference and helpsteer3_preference"):
        find_format(data(), both)


def test_a_named_format_is_known_and_has_its_columns() -> None:
    with pytest.raises(ValidationError, match=r"unknown format; did you mean plain\?"):
        SourceSettings(path="x", format="plane")
    with pytest.raises(FormatError, match="format ultrafeedback needs columns completions"):
        find_format(data(source=SourceSettings(path="x", format="ultrafeedback")), ["instruction"])


def test_a_source_without_ratings_says_what_to_do_unless_every_pair_may_be_hard() -> None:
    for columns in (["chosen", "rejected"], ["prompt", "chosen", "rejected"]):
        with pytest.raises(
            FormatError, match=r"no ratings here: map their columns, .*=hard.*sorted_dpo.*unrated-pairs"
        ):
            find_format(data(), columns)
        assert find_format(data(missing_score="hard"), columns)


def test_columns_of_other_names_are_mapped() -> None:
    names = {"prompt": "question", "chosen": "good", "rejected": "bad", "margin": "gap"}
    source = SourceSettings(path="x", columns=names)
    assert find_format(data(source=source), ["question", "good", "bad", "gap"]) == "plain"
    with pytest.raises(FormatError, match=r"data\.source\.columns names gap"):
        find_format(data(source=source), ["question", "good", "bad"])


def test_a_mapping_that_the_format_would_ignore_is_refused() -> None:
    source = SourceSettings(path="x", columns={"margin": "gap"})
    columns = [*SAMPLES["ultrafeedback_binarized"].rows[0], "gap"]
    with pytest.raises(FormatError, match="maps margin, which format ultrafeedback_binarized does not read"):
        find_format(data(source=source), columns)


def test_columns_that_fit_no_format_are_mapped_in_the_example_as_their_names_suggest() -> None:
    assert wrong_with(OWN).endswith(f"own.jsonl has {', '.join(OWN)}: our name first, as in {EXAMPLE}")


@pytest.mark.parametrize(
    ("columns", "example"),
    [
        (["prompt", "bestAnswer", "worstAnswer", "gap"], "chosen: bestAnswer, rejected: worstAnswer, margin: gap"),
        (["prompt", "a", "b", "score_diff"], "chosen: THEIRS, rejected: THEIRS, margin: score_diff"),
        (["prompt", "chosen", "rejected"], "score_chosen: THEIRS, score_rejected: THEIRS"),
        (["prompt", "chosen", "rejected", "margin"], ""),
        (
            ["prompt_id", "good", "good_text", "bad: one"],
            "prompt: THEIRS, chosen: THEIRS, rejected: 'bad: one', score_chosen: THEIRS, score_rejected: THEIRS",
        ),
    ],
)
def test_what_no_name_gives_away_is_a_gap_in_the_example(columns: list[str], example: str) -> None:
    assert columns_example(columns, {}, "plain") == f'"data.source.columns={{{example}}}"'


def test_every_misspelt_column_is_told_at_once_with_the_one_that_was_meant() -> None:
    said = wrong_with(OWN, {**MAPPED, "prompt": "questn", "score_chosen": "good_ratng"})
    assert said.startswith(
        "data.source.columns names questn (for prompt), which the source does not have: did you mean question? "
        "data.source.columns names good_ratng (for score_chosen), which the source does not have: did you mean "
        "good_rating? own.jsonl has question, good"
    )
    assert said.endswith(EXAMPLE)


def test_our_misspelt_name_and_a_mapping_the_wrong_way_round_are_told_with_theirs() -> None:
    mapping = {"question": "prompt", "chosn": "good", "rejected": "bd"}
    assert wrong_with(OWN, mapping).startswith(
        "data.source.columns writes question: prompt the wrong way round; data.source.columns maps chosn, which no "
        "format reads: did you mean chosen? data.source.columns names bd (for rejected), which the source does not "
        "have: did you mean bad? format plain has no ratings here: map their columns; own.jsonl has question, good"
    )


def test_a_wide_source_is_listed_by_its_first_columns() -> None:
    assert "c18, c19 and 80 more: our name first" in wrong_with([f"c{number}" for number in range(100)])
