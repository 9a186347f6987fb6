"""Refused rows are told with what their reason means, one value at fault, and what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.pairs.causes import causes_text, reasons_text, row_read_again
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.pairs.quarantine import Quarantine, over_budget
from mixdpo_ray.pairs.settings import SourceSettings
from tests.pairs.samples import BAD, GOOD, QUESTION, conversation

PAIR = {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "stars": 4, "score_rejected": 2}
COLUMNS = {"score_chosen": "stars"}


def told(file: Path, reason: str, **changed: Any) -> str:
    """What is said of a file whose second row is refused."""
    file.write_text("".join(f"{json.dumps(row)}\n" for row in (PAIR, {**PAIR, **changed})))
    return causes_text([Refusal(str(file), 1, reason)], lambda one: row_read_again(one, 10_000), COLUMNS)


@pytest.mark.parametrize(
    ("reason", "changed", "expected"),
    [
        (
            "bad_score",
            {"stars": "8/10"},
            "1 bad_score (a rating is not a number but text or something else, as in stars '8/10': write numbers "
            "without quotes, or name columns of them)",
        ),
        (
            "bad_turns",
            {"prompt": None, "chosen": conversation(QUESTION), "rejected": 3},
            "1 bad_turns (turns are not texts of (system,) user, assistant, user, ... ending with an assistant, as in "
            "prompt nothing, chosen turns of user, rejected 3: look at data.source.columns)",
        ),
        (
            "bad_turns",
            {"prompt": ["private"], "chosen": {"text": "private"}},
            "1 bad_turns (turns are not texts of (system,) user, assistant, user, ... ending with an assistant, as in "
            "prompt a list, chosen a mapping, rejected a text: look at data.source.columns)",
        ),
        (
            "missing_score",
            {"stars": None},
            "1 missing_score (a rating is missing (data.missing_score): jobs/rate.py rates them, and "
            "data.missing_score=hard keeps such pairs, as hard ones)",
        ),
        ("empty_prompt", {"prompt": ""}, "1 empty_prompt (a turn of the prompt has no text)"),
        (
            "prompt_in_heldout",
            {},
            "1 prompt_in_heldout (the prompt is also in the held-out split: leave such prompts out of one of the two "
            "sources)",
        ),
    ],
)
def test_each_reason_is_told_with_its_value_and_its_remedy(
    tmp_path: Path, reason: str, changed: dict[str, Any], expected: str
) -> None:
    assert told(tmp_path / "own.jsonl", reason, **changed) == expected


def test_rare_reasons_are_only_counted() -> None:
    counts = {"empty_answer": 5, "empty_prompt": 4, "bad_turns": 3, "bad_score": 2, "corrupt_line": 1, "nan_score": 1}
    assert reasons_text(counts).endswith("or name columns of them), 2 for other reasons")


def test_the_first_refused_rows_are_named_with_their_file_once(tmp_path: Path) -> None:
    refusals = [Refusal("far/a.jsonl", row, "bad_score") for row in range(3)] + [Refusal("b.jsonl", 0, "empty_answer")]
    quarantine = Quarantine.of(refusals)
    said = str(over_budget(quarantine, 8, SourceSettings(path="far/a.jsonl"), "q.jsonl"))
    assert "the first: b.jsonl row 0 (empty_answer); far/a.jsonl row 0 (bad_score), 1 (bad_score), 2 (bad_sc" in said
    path = str(tmp_path / "q.jsonl")
    quarantine.write(path)
    assert '"meaning": "an answer has no text"' in Path(path).read_text()
    assert Quarantine.read(path) == quarantine


def test_the_refused_rows_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"file": "a", "row": 3, "reason": "bad_score"}\n')
    assert Quarantine.read(str(path)).refusals == (Refusal("a", 3, "bad_score"),)
