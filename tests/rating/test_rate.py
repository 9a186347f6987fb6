"""Answers and pairs become rated ones that prepare reads; nothing is rated twice, and nothing is made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.errors import DataError, EvaluationError, MixDPOError, QuarantineError
from mixdpo_ray.pairs.convert import Converter
from mixdpo_ray.pairs.pairing import PairSettings
from mixdpo_ray.pairs.quarantine import Quarantine
from mixdpo_ray.pairs.reading import read_rows
from mixdpo_ray.playground.prompts import Prompt, quality
from mixdpo_ray.rating.rate import rate_answers
from mixdpo_ray.training.tokenizer import load_tokenizer
from tests.pairs.samples import data
from tests.rating.ratings import answers, lines, make_folder, recipe, write_rows

TWO = "answers.rate.raters={truth: {kind: playground}, again: {kind: playground}}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("rating"))


def test_answers_are_rated_by_the_truth_and_become_pairs_without_ray(folder: Path) -> None:
    asked = recipe(folder, out="truth")
    report = rate_answers(asked)
    assert report.kept == 12
    for line in lines(report):
        for answer in line["answers"]:
            assert answer["score"] == answer["ratings"]["truth"]
            assert answer["score"] == quality(Prompt.of_text(line["prompt"][0]["content"]), answer["text"])
    converter = Converter(data(pair=PairSettings(rule="dcrm")), "rated_answers", load_tokenizer(asked.model))
    conversion = converter.convert(read_rows(report.file, 1 << 20))
    assert (len(conversion.kept), conversion.refused) == (12, [])
    assert min(conversion.kept["margin"].to_pylist()) > 0
    shown = report.describe()
    assert "truth: 46 ratings: mean" in shown
    assert f"data.source.path={report.file} data.source.format=rated_answers" in shown
    assert Path(report.picture).read_bytes()[:4] == b"\x89PNG"


def test_rows_of_one_answer_belong_together_and_what_gives_no_pair_has_its_reason(folder: Path) -> None:
    """Answers as jobs/sample.py writes them, a row each, in any order."""
    rows: list[dict[str, Any]] = [
        {"prompt": "sort b a", "answer": "a b", "model": "one"},
        {"prompt": "sort c a", "answer": "a c"},
        {"prompt": [{"role": "user", "content": "sort b a"}], "answer": "b a", "model": "another"},
        {"prompt": "sort c a", "answer": "a c "},
        {"prompt": "sort d a", "answer": "k"},
        {"prompt": "sort d a", "answer": "l"},
        {"prompt": "sort e a", "answer": "a e"},
        {"prompt": "", "answer": "a e"},
        {"prompt": "sort f a", "answer": " "},
        {"prompt": "sort g a", "answer": 7},
    ]
    file = write_rows(folder / "single.jsonl", rows)
    overrides = [f"answers.rate.source.path={file}", "answers.rate.source.max_quarantined_fraction=0.3"]
    report = rate_answers(recipe(folder, *overrides, out="single"))
    (line,) = lines(report)
    assert [(one["text"], one["model"]) for one in line["answers"]] == [("a b", "one"), ("b a", "another")]
    told = {(one.row, one.reason) for one in Quarantine.read(report.quarantine).refusals}
    assert told == {
        (1, "all_answers_equal"),
        (4, "all_scores_tie"),
        (6, "too_few_rated_answers"),
        (7, "empty_prompt"),
        (8, "empty_answer"),
        (9, "malformed_row"),
    }
    assert "refused: 1 all_scores_tie (no answer to the prompt is rated above another)" in report.describe()


def test_a_source_of_which_too_much_is_refused_is_not_rated(folder: Path) -> None:
    file = folder / "cut.jsonl"
    file.write_text('{"prompt": "sort b a", "answers": ["a b", "b a"]}\n{"prompt": "sort c a", "answers": ["a c"\n')
    with pytest.raises(QuarantineError, match=r"1 of 2 rows were refused, 50\.0%.* row 1; all: .*quarantine\.jsonl"):
        rate_answers(recipe(folder, f"answers.rate.source.path={file}", out="cut"))
    assert not list((folder / "cut").rglob("recipe.jsonl"))


def test_columns_of_other_names_are_mapped(folder: Path) -> None:
    file = write_rows(
        folder / "named.jsonl", [{"question": "sort b a", "responses": ["a b", {"response": "b", "model": "m"}]}]
    )
    source = f"answers.rate.source={{path: {file}, columns: {{prompt: question, answers: responses}}}}"
    assert [(one["score"], one["model"]) for one in answers(rate_answers(recipe(folder, source, out="named")))] == [
        (10, None),
        (5.5, "m"),
    ]


def test_what_was_sampled_for_a_recipe_is_rated_by_default(folder: Path) -> None:
    asked = recipe(folder, "answers.rate.source=null", out="sampled")
    with pytest.raises(DataError, match=r"recipe\.jsonl does not exist: draw answers .* by jobs/sample\.py first"):
        rate_answers(asked)
    (folder / "sampled" / "samples").mkdir(parents=True)
    row = {"prompt_id": "x", "draw": 0, "prompt": [{"role": "user", "content": "sort b a"}], "finish": "stop"}
    rows = [{**row, "answer": answer, "model": "policy"} for answer in ("a b", "b a", "a b")]
    write_rows(folder / "sampled" / "samples" / "recipe.jsonl", rows)
    assert [(one["text"], one["model"]) for one in answers(rate_answers(asked))] == [
        ("a b", "policy"),
        ("b a", "policy"),
    ]


def test_pairs_without_ratings_get_two_scores_and_keep_their_order(folder: Path) -> None:
    rows = [
        {"prompt": "sort b a", "chosen": "a b", "rejected": "k"},
        {"prompt": "sort c a", "chosen": "k", "rejected": "a c"},  # the wrong way round
        {"prompt": "sort d a", "chosen": "k", "rejected": "l"},  # a tie
        {"prompt": "sort e a", "chosen": "a e", "rejected": "a e"},
    ]
    file = write_rows(folder / "unrated.jsonl", rows)
    own = ["answers.rate.source=null", "answers.rate.pairs=true", f"data.source={{path: {file}, format: plain}}"]
    report = rate_answers(recipe(folder, *own, "data.source.max_quarantined_fraction=0.25", out="pairs"))
    assert [(line["chosen"], line["score_chosen"], line["score_rejected"]) for line in lines(report)] == [
        ("a b", 10, 1),
        ("k", 1, 10),
        ("k", 1, 1),
    ]
    assert (report.against, report.quarantined) == (1, {"identical_answers": 1})
    assert (
        "warning: 1 of 3 pairs are rated against their order: kept as they are; data.negative_margin"
        in report.describe()
    )
    converter = Converter(data(negative_margin="swap"), "plain", load_tokenizer(recipe(folder).model))
    conversion = converter.convert(read_rows(report.file, 1 << 20))
    assert conversion.kept["margin"].to_pylist() == [9, 9, 0]
    assert conversion.notes == {"swapped": 1}


def test_raters_that_disagree_leave_a_prompt_out_and_their_width_beside_the_others(folder: Path) -> None:
    report = rate_answers(recipe(folder, TWO, "answers.rate.combine=agreement", out="two"))
    assert {answer["width"] for answer in answers(report)} == {0.0}
    assert report.agreements["truth", "again"].accuracy == 1
    assert "truth and again order 100.0 % of" in report.describe()


def test_an_answer_that_nobody_can_rate_is_no_number_and_too_many_stop_the_job(folder: Path) -> None:
    rows = [{"prompt": "sort b a", "answers": ["a b", "b"]}, {"prompt": "Why is the sky blue?", "answers": ["x", "y"]}]
    source = f"answers.rate.source.path={write_rows(folder / 'sky.jsonl', rows)}"
    with pytest.raises(EvaluationError) as error:
        rate_answers(recipe(folder, source, out="sky"))
    assert str(error.value).startswith(
        "2 of 4 ratings by truth are missing, more than answers.rate.max_missing allows (0.05)"
    )
    report = rate_answers(recipe(folder, source, "answers.rate.max_missing=0.5", out="sky"))
    assert report.raters["truth"].missing == {"no_playground_prompt": 2}
    assert report.quarantined == {"too_few_rated_answers": 1}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["answers.rate.raters={}"], "answers.rate.raters names none: give one, such as {reward: {kind: reward_model"),
        (
            ["answers.rate.raters={j: {kind: judge}}", "answers.judge=null"],
            "answers.rate.raters.j asks the recipe's judge",
        ),
        (["answers.rate.raters={j: {kind: jugde}}"], "unknown kind 'jugde'; did you mean judge?"),
        (["answers.rate.raters={j: {model: x}}"], "write {kind: ..., and its settings}; kind is one of reward_model"),
        (
            ["answers.rate.raters={j: {kind: judge, readin: x}}"],
            "answers.rate.raters.j.readin is unknown; did you mean reading?",
        ),
        (["answers.rate.combine=agreement"], "combine agreement needs two raters at least"),
        (["answers.rate.pairs=true"], "pairs rates those of data.source, and source names answers: leave one out"),
        (["answers.rate.source.path=/no/where.jsonl"], "answers.rate.source"),
        (["answers.rate.source.path={folder}/pairs.jsonl"], "answers.rate.source has columns"),
        (["answers.rate.source={path: '{folder}/answers.jsonl', format: plain}"], "format plain is one of pairs"),
        (
            ["answers.rate.source=null", "answers.rate.pairs=true", "data.source.path={folder}/rated.jsonl"],
            "data.source.format rated_answers holds several answers to a prompt and no pairs",
        ),
    ],
)
def test_what_cannot_be_rated_is_refused_in_one_line(folder: Path, overrides: list[str], said: str) -> None:
    write_rows(folder / "rated.jsonl", [{"prompt": "sort b a", "answers": [{"text": "a b", "score": 1}]}])
    with pytest.raises(MixDPOError) as error:
        rate_answers(recipe(folder, *(override.replace("{folder}", str(folder)) for override in overrides)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_raters_are_written_down_as_they_were_read(folder: Path) -> None:
    asked = recipe(
        folder, "answers.rate.raters={a: {kind: judge, reading: expected}, b: {kind: reward_model, model: x}}"
    )
    kept = json.loads(json.dumps(asked.to_dict()))
    assert type(asked).model_validate(kept) == asked
