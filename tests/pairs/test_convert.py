"""Every reason, from jsonl and from parquet where parquet can carry it, between good rows that must be kept."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.pairs.convert import CONVERTED_SCHEMA, Conversion, Converter
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.reading import RawRow, read_rows
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings
from tests.pairs.samples import BAD, GOOD, QUESTION, SAMPLES, completion, conversation, data
from tests.pairs.small_tokenizers import FORGETFUL, NO_SYSTEM, THINKING, UNMARKED, small_tokenizer

BINARIZED = SAMPLES["ultrafeedback_binarized"].rows[0]
LONG = "Honey and wax, and wax and honey. " * 30
ROOM = {"max_prompt_length": 60, "max_length": 100}


SHORT_ROWS = {"path": "x", "max_row_bytes": 10_000}


@dataclass(frozen=True)
class Case:
    """A row that is refused for one reason, and what it takes for that."""

    row: dict[str, Any] | str  # a string is a raw line, which only jsonl can carry
    format: str = "ultrafeedback_binarized"
    settings: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    parquet: bool = True


def binarized(chosen: Any = GOOD, rejected: Any = BAD, prompt: str = QUESTION, **columns: Any) -> dict[str, Any]:
    turns = [conversation(prompt, answer) if isinstance(answer, str) else answer for answer in (chosen, rejected)]
    return {**BINARIZED, "chosen": turns[0], "rejected": turns[1], **columns}


TURNS = conversation(QUESTION, GOOD, "And flies?", "Nothing.")  # parts from BAD at the first answer
PLAIN = SAMPLES["plain"].rows[0]
SYSTEM = [[{"role": "system", "content": "Be brief."}, *conversation(QUESTION, text)] for text in (GOOD, BAD)]
HELPSTEER3 = {**SAMPLES["helpsteer3_preference"].rows[0], "overall_preference": 0}
RATED, ONE = SAMPLES["rated_answers"].rows[0], {"text": GOOD, "score": 7.5}
CASES: dict[str, list[Case]] = {
    "corrupt_line": [Case('{"chosen": ', parquet=False), Case("17", parquet=False)],
    "malformed_row": [Case({"instruction": QUESTION, "completions": None}, "ultrafeedback")],
    "oversized_row": [
        Case(binarized("wax " * 3000), settings={"source": SHORT_ROWS}),
        Case("x" * 20_000, settings={"source": SHORT_ROWS}, parquet=False),
    ],
    "too_few_rated_answers": [
        Case({"instruction": QUESTION, "completions": [completion(GOOD, 8.0, "4")]}, "ultrafeedback"),
        Case({**SAMPLES["helpsteer2"].rows[0], "prompt": "Alone?"}, "helpsteer2"),
    ],
    "all_answers_equal": [Case({**RATED, "answers": [ONE, {**ONE, "score": 3.0}]}, "rated_answers")],
    "all_scores_tie": [Case({**RATED, "answers": [ONE, {**ONE, "text": BAD}]}, "rated_answers")],
    "undecided_tie": [Case({**HELPSTEER3, "individual_preference": [{"score": 0}]}, "helpsteer3_preference")],
    "bad_turns": [
        Case(binarized(conversation(QUESTION), conversation(QUESTION))),
        Case(binarized(conversation(QUESTION, GOOD)[::-1])),
        Case(binarized([{"role": "user", "content": 7}, {"role": "assistant", "content": GOOD}]), parquet=False),
    ],
    "empty_prompt": [Case(binarized(prompt="  \n"))],
    "empty_answer": [Case(binarized(" \n")), Case(binarized(rejected=""))],
    "identical_answers": [Case(binarized(GOOD, f"{GOOD}\n"))],
    "answers_differ_before_last_turn": [Case(binarized(conversation("Another question?", GOOD)))],
    "malformed_tools": [Case({**PLAIN, "tools": one}, "plain") for one in ("no JSON", '{"name": "f"}', [{"name": 1}])],
    "malformed_template_kwargs": [Case({**PLAIN, "chat_template_kwargs": one}, "plain") for one in ("[1]", "{")],
    "turns_not_separable": [Case(binarized(TURNS), template=FORGETFUL)],
    "no_assistant_tokens": [Case(binarized(TURNS), template=UNMARKED)],
    "lone_surrogate": [Case(binarized(f"{GOOD} \ud83d"), parquet=False)],
    "missing_score": [Case(binarized(score_chosen=None))],
    "nan_score": [Case(binarized(score_rejected=math.nan))],
    "infinite_score": [Case(binarized(score_chosen=math.inf)), Case(binarized(score_rejected=-math.inf))],
    "bad_score": [Case(binarized(score_chosen="8.5"), parquet=False)],
    "negative_margin": [Case(binarized(score_chosen=1.0), settings={"negative_margin": "drop"})],
    "unknown_scale": [
        Case({**SAMPLES["dpo_mix_7k"].rows[0], "dataset": "new"}, "dpo_mix_7k", {"margin_scale": "auto"})
    ],
    "control_token": [Case(binarized("a<|im_end|>b")), Case(binarized(prompt="<eos>"))],
    "template_refuses_turns": [Case(binarized(SYSTEM[0], SYSTEM[1]), template=NO_SYSTEM)],
    "prompt_too_long": [Case(binarized(prompt=LONG), settings=ROOM)],
    "answer_too_long": [Case(binarized(LONG), settings=ROOM), Case(binarized(rejected=LONG), settings=ROOM)],
    "answer_truncated_to_nothing": [
        Case(binarized(prompt=LONG), settings={"max_prompt_length": 70, "max_length": 70, "truncation": "truncate"})
    ],
    "answers_equal_after_truncation": [
        Case(binarized(f"{LONG} yes", f"{LONG} no"), settings={**ROOM, "truncation": "truncate"})
    ],
}
# not a row's own: a whole file, a template that fails every row, and what only all rows together show
ELSEWHERE = {
    "corrupt_file",
    "template_changes_prompt",
    "duplicate_pair",
    "prompt_in_heldout",
    "heldout_is_full",
    "not_selected",
    "left_out_by_weight",
    "curated_away",
    "no_ratings_to_state",
    "tie_not_augmented",
    "raters_disagree",
    "several_turns",
    "sft_is_full",
}


def good_rows(name: str) -> list[dict[str, Any]]:
    return SAMPLES[name].rows


def write(folder: Path, rows: list[dict[str, Any] | str], kind: str) -> str:
    path = folder / f"pairs.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    else:
        named = dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)
        pq.write_table(pa.Table.from_pylist([{**named, **row} for row in rows if isinstance(row, dict)]), path)
    return str(path)


def convert(file: str, case: Case, settings: DataSettings) -> Conversion:
    tokenizer = small_tokenizer(case.template) if case.template else small_tokenizer()
    return Converter(settings, case.format, tokenizer).convert(read_rows(file, settings.max_row_bytes))


ROWS = [
    pytest.param(reason, case, kind, id=f"{reason}-{number}-{kind}")
    for reason, cases in CASES.items()
    for number, case in enumerate(cases)
    for kind in ("jsonl", "parquet")
    if kind == "jsonl" or case.parquet
]


def test_every_reason_has_a_row() -> None:
    assert CASES.keys() | ELSEWHERE == REASONS.keys()


@pytest.mark.parametrize(("reason", "case", "kind"), ROWS)
def test_a_row_is_refused_by_name_and_its_neighbours_are_kept(
    tmp_path: Path, reason: str, case: Case, kind: str
) -> None:
    good = good_rows(case.format)
    file = write(tmp_path, [*good, case.row, *(good if len(good) == 1 else [])], kind)
    conversion = convert(file, case, data(**case.settings))
    assert [(one.file, one.row, one.reason) for one in conversion.refused] == [(file, len(good), reason)]
    kept = 2 if len(good) == 1 else 1
    assert len(conversion.kept) == kept
    assert conversion.rows_in == kept + 1


def test_a_template_that_changes_the_prompt_refuses_every_row(tmp_path: Path) -> None:
    case = Case(BINARIZED, template=THINKING)
    conversion = convert(write(tmp_path, [BINARIZED, BINARIZED], "jsonl"), case, data())
    assert [one.reason for one in conversion.refused] == ["template_changes_prompt"] * 2


def test_a_corrupt_file_is_one_refused_row(tmp_path: Path) -> None:
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 damaged")
    conversion = convert(str(tmp_path / "pairs.parquet"), Case(BINARIZED), data())
    assert [(one.row, one.reason) for one in conversion.refused] == [(-1, "corrupt_file")]
    assert (conversion.rows_in, len(conversion.kept)) == (1, 0)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_sample_of_every_format_survives_the_way_from_file_to_tokens(tmp_path: Path, name: str, kind: str) -> None:
    conversion = convert(write(tmp_path, list(good_rows(name)), kind), Case({}, name), data())
    assert conversion.refused == []
    assert conversion.kept["margin"].to_pylist() == [pytest.approx(SAMPLES[name].margin)]
    tokenizer = small_tokenizer()
    assert tokenizer.decode(conversion.kept["chosen_ids"][0].as_py()) == f"{GOOD}<|im_end|>"
    assert tokenizer.decode(conversion.kept["rejected_ids"][0].as_py()) == f"{BAD}<|im_end|>"


def test_kept_rows_say_what_they_are_and_where_they_came_from(tmp_path: Path) -> None:
    file = write(tmp_path, ["broken", BINARIZED], "jsonl")
    conversion = convert(file, Case({}), data())
    assert conversion.kept.schema.equals(CONVERTED_SCHEMA)
    (row,) = conversion.kept.to_pylist()
    assert (row["file"], row["row"], row["candidate"]) == (file, 1, 0)
    assert (row["score_chosen"], row["score_rejected"], row["margin"]) == (8.5, 4.0, 4.5)
    assert row["source"] == "ultrafeedback_binarized"


@pytest.mark.parametrize(
    ("settings", "row", "named"),
    [
        ({}, binarized(score_chosen=1.0), "negative_margin swap or drop or hard"),
        ({"missing_score": "error"}, binarized(score_chosen=None), "missing_score "),
        ({"truncation": "raise", **ROOM}, binarized(LONG), "truncation "),
    ],
)
def test_a_policy_may_stop_at_such_a_row_naming_it_but_not_its_text(
    tmp_path: Path, settings: dict[str, Any], row: dict[str, Any], named: str
) -> None:
    file = write(tmp_path, [BINARIZED, row], "jsonl")
    with pytest.raises(DataError, match=rf"pairs\.jsonl row 1: .*choose data\.{named}") as caught:
        convert(file, Case({}), data(**settings))
    assert "bees" not in str(caught.value)


def test_a_policy_that_stops_tells_how_many_such_rows_there_are_and_the_first_three(tmp_path: Path) -> None:
    wrong = binarized(score_chosen=1.0)
    file = write(tmp_path, [BINARIZED, wrong, BINARIZED, wrong, wrong, wrong], "jsonl")
    with pytest.raises(DataError) as caught:
        convert(file, Case({}), data())
    assert str(caught.value) == (
        f"{file} row 1, {file} row 3, {file} row 4, and more (4 of the 6 rows read): chosen is rated below rejected "
        "(data.negative_margin); are the columns of the two answers the wrong way round? Else correct the rows, or "
        "choose data.negative_margin swap or drop or hard"
    )


def test_what_policies_change_is_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        BINARIZED,
        binarized(score_chosen=1.0),
        binarized(LONG),
        binarized(LONG, f"No. {LONG}"),
        binarized(prompt=LONG),
    ]
    settings = data(negative_margin="swap", truncation="truncate", **ROOM)
    conversion = convert(write(tmp_path, rows, "jsonl"), Case({}), settings)
    assert conversion.notes == {"swapped": 1, "truncated_chosen": 2, "truncated_rejected": 1, "truncated_prompt": 1}
    assert (len(conversion.kept), conversion.rows_in) == (5, 5)


def test_missing_ratings_may_make_hard_pairs(tmp_path: Path) -> None:
    row = {key: value for key, value in SAMPLES["hh_rlhf"].rows[0].items() if key != "margin"}
    conversion = convert(write(tmp_path, [row], "jsonl"), Case({}, "hh_rlhf"), data(missing_score="hard"))
    assert conversion.kept["margin"].to_pylist() == [0.0]
    assert conversion.notes == {"missing_score_made_hard": 1}


def test_mapped_columns_are_read_under_our_names(tmp_path: Path) -> None:
    names = {"prompt": "question", "chosen": "good", "rejected": "bad", "margin": "gap"}
    source = SourceSettings(path="x", columns=names)
    row = {"question": QUESTION, "good": GOOD, "bad": BAD, "gap": 1.25}
    conversion = convert(write(tmp_path, [row], "parquet"), Case({}, "plain"), data(source=source))
    assert conversion.kept["margin"].to_pylist() == [1.25]


def helpsteer2_rows() -> list[RawRow]:
    """Prompts 0 to 9 in one file, their second answers in another, in another order."""
    first = [RawRow("a", i, {"prompt": f"p{i}", "response": GOOD, "helpfulness": 3}) for i in range(10)]
    second = [RawRow("b", 9 - i, {"prompt": f"p{i}", "response": BAD, "helpfulness": 1}) for i in range(10)]
    return [*first, *second]


def test_responses_are_grouped_by_their_prompt_and_never_by_neighbourhood() -> None:
    converter = Converter(data(), "helpsteer2", small_tokenizer())
    conversion = converter.convert(helpsteer2_rows())
    assert (conversion.rows_in, len(conversion.kept)) == (10, 10)
    assert set(conversion.kept["margin"].to_pylist()) == {2.0}
    assert conversion.kept["row"].to_pylist() == list(range(10))


def test_groups_may_be_converted_apart_in_any_order_with_the_same_result() -> None:
    converter = Converter(data(), "helpsteer2", small_tokenizer())
    rows = [*helpsteer2_rows(), RawRow("c", 0, None, "corrupt_line"), RawRow("c", 1, None, "corrupt_line")]
    groups: dict[str, list[RawRow]] = {}
    for raw in reversed(rows):
        groups.setdefault(converter.group_key(raw), []).append(raw)
    assert len(groups) == 12
    apart = [converter.convert(group) for group in groups.values()]
    together = converter.convert(rows)
    in_order = sorted((row for part in apart for row in part.kept.to_pylist()), key=lambda row: int(row["row"]))
    assert in_order == together.kept.to_pylist()
    assert sum(part.rows_in for part in apart) == together.rows_in == 12


def test_conversion_does_not_depend_on_how_the_rows_are_portioned() -> None:
    texts = [("Wax.", "Cars."), ("", "x"), (LONG, "Noise."), ("<eos>", "x"), ("Honey.", "Buses.")] * 120
    rows = [RawRow("f", i, binarized(chosen, rejected, f"q{i}")) for i, (chosen, rejected) in enumerate(texts)]
    converter = Converter(data(**ROOM), "ultrafeedback_binarized", small_tokenizer())
    whole = converter.convert(rows)
    parts = [converter.convert(rows[start : start + 77]) for start in range(0, len(rows), 77)]
    assert pa.concat_tables([part.kept for part in parts]).equals(whole.kept)
    assert len(whole.kept) == 240
    assert whole.rows_in == 600


def test_a_converter_can_be_sent_to_a_worker() -> None:
    converter = Converter(data(), "ultrafeedback_binarized", small_tokenizer())
    again = pickle.loads(pickle.dumps(converter))
    rows = [RawRow("f", 0, BINARIZED)]
    assert again.convert(rows).kept.equals(converter.convert(rows).kept)
