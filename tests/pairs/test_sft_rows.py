"""Rows with one good answer: which formats give them, and which rows are refused."""

from __future__ import annotations

import pytest

from mixdpo_ray.errors import FormatError
from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.pairs.pair import Candidate, Pair
from mixdpo_ray.pairs.settings import SFT_SOURCE, DataSettings
from mixdpo_ray.pairs.sft_rows import check_answer, format_of_source, kind_of_format

ASKED = {"role": "user", "content": "why"}


def data(**source: object) -> DataSettings:
    settings = DataSettings.model_validate({"source": {"path": "p"}, "sft": {"source": {"path": "s", **source}}})
    return settings.by_source[SFT_SOURCE]


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        (("prompt", "answer"), "prompt_answer"),
        (("prompt", "completion", "id"), "prompt_completion"),
        (("prompt", "chosen"), "prompt_chosen"),
        (("messages", "source"), "messages"),
        (("prompt", "chosen", "rejected"), "plain"),
        (("prompt", "response", "helpfulness"), "helpsteer2"),
    ],
)
def test_a_source_is_known_by_its_columns(columns: tuple[str, ...], name: str) -> None:
    assert format_of_source(SFT_SOURCE, data(), columns) == name


def test_columns_are_mapped_and_what_is_lacking_is_told() -> None:
    mapped = data(columns={"prompt": "question", "answer": "reply"})
    assert format_of_source(SFT_SOURCE, mapped, ("question", "reply")) == "prompt_answer"
    with pytest.raises(FormatError, match="columns question, reply: for SFT it needs messages, or prompt and answer"):
        format_of_source(SFT_SOURCE, data(), ("question", "reply"))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "why", "answer": "so"},
        {"prompt": [ASKED], "answer": "so"},
        {"prompt": "why", "answer": [{"role": "assistant", "content": "so"}]},
    ],
)
def test_a_row_becomes_its_prompt_and_its_answer(row: dict[str, object]) -> None:
    (candidate,) = kind_of_format("prompt_answer").candidates(row)
    assert isinstance(candidate, Candidate)
    found = check_answer(candidate, data())
    assert isinstance(found, Pair)
    assert ([dict(turn) for turn in found.prompt], found.chosen) == ([ASKED], "so")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([ASKED], "bad_turns"),
        (None, "bad_turns"),
        ([ASKED, {"role": "assistant", "content": " "}], "empty_answer"),
        ([{"role": "user", "content": ""}, {"role": "assistant", "content": "-"}], "empty_prompt"),
        ([ASKED, {"role": "assistant", "content": None}], "bad_turns"),
    ],
)
def test_a_row_that_is_none_has_a_reason(turns: object, reason: str) -> None:
    assert check_answer(Candidate(turns, None, "sft"), data()) == reason
    assert reason in REASONS


def test_an_answer_is_never_taken_for_the_text_that_stands_beside_it() -> None:
    for answer in ("-", "+", " - "):
        found = check_answer(Candidate([ASKED, {"role": "assistant", "content": answer}], None, "sft"), data())
        assert isinstance(found, Pair)
        assert found.chosen == answer
