"""Raters on a cluster: models by the actor pool, against one answer at a time; and a judge over HTTP, with faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from mixdpo_ray.errors import EndpointError, ModelError
from mixdpo_ray.pairs.tokens import PairTokenizer
from mixdpo_ray.playground.base_model import make_tokenizer
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from mixdpo_ray.playground.truth import true_share
from mixdpo_ray.rating.dry_run import plan_ratings
from mixdpo_ray.rating.rate import rate_answers
from mixdpo_ray.rating.rated_table import AnswerNumbers
from mixdpo_ray.rating.report import RateReport
from tests.rating.ratings import answers, lines, make_folder, recipe, write_rows

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("raters"))


def models(folder: Path, **changed: str) -> str:
    own = {"model": str(folder / "tuned"), **changed}
    implicit = ", ".join(f"{name}: {value}" for name, value in own.items())
    reward = f"{{kind: reward_model, model: {folder}/reward, dtype: float32, batch_size: 5}}"
    return f"answers.rate.raters={{reward: {reward}, own: {{kind: implicit, {implicit}}}}}"


def tables(folder: Path) -> list[AnswerNumbers]:
    found = [path for path in (folder / "rated").iterdir() if path.is_dir()]
    return [AnswerNumbers.open(str(path)) for path in sorted(found)]


def expected_rewards(folder: Path, report: RateReport) -> list[float]:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder / "reward"), make_tokenizer()
    found = []
    for line in lines(report):
        for answer in line["answers"]:
            turns = [*line["prompt"], {"role": "assistant", "content": answer["text"]}]
            ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False), add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                found.append(float(model.eval()(torch.tensor([ids])).logits[0, 0]))
    return found


def expected_log_ratios(folder: Path, report: RateReport) -> list[float]:
    both = [AutoModelForCausalLM.from_pretrained(folder / name).eval() for name in ("tuned", "model")]
    encoder = PairTokenizer(make_tokenizer(), recipe(folder).data)
    found = []
    for line in lines(report):
        for answer in line["answers"]:
            encoded = encoder.encode_answer(line["prompt"], answer["text"])
            assert not isinstance(encoded, str)
            prompt, ids = encoded
            with torch.no_grad():
                logits = [model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1] for model in both]
            sums = [one.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum() for one in logits]
            found.append(0.1 * float(sums[0] - sums[1]))
    return found


def test_models_rate_as_they_would_one_answer_at_a_time_and_nothing_twice(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that was killed left what it had rated, as one of fewer answers does."""
    rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
    few = write_rows(folder / "few.jsonl", rows[:5])
    alone = f"answers.rate.raters={{any: {{kind: reward_model, model: {folder}/reward, dtype: float32}}}}"
    rate_answers(recipe(folder, alone, f"answers.rate.source.path={few}", "output.name=few"))

    report = rate_answers(recipe(folder, models(folder)))
    assert "reward: 20 of 46 answers are rated already" in capsys.readouterr().err
    rated = answers(report)
    assert [one["ratings"]["reward"] for one in rated] == pytest.approx(expected_rewards(folder, report), abs=1e-5)
    assert [one["ratings"]["own"] for one in rated] == pytest.approx(expected_log_ratios(folder, report), abs=1e-5)
    covered = sorted((table.manifest.passes, table.manifest.pairs) for table in tables(folder / "out"))
    assert covered == [(1, 46), (1, 46), (2, 46)]

    again = rate_answers(recipe(folder, models(folder), "output.name=again"))
    assert lines(again) == lines(report)
    swapped = rate_answers(
        recipe(folder, models(folder, model=f"{folder}/model", against=f"{folder}/tuned", beta="1.0"))
    )
    assert [one["ratings"]["own"] for one in answers(swapped)] == pytest.approx(
        [-10 * one["ratings"]["own"] for one in rated]
    )
    assert sum(table.manifest.passes for table in tables(folder / "out")) == 4


def test_models_that_cannot_rate_are_refused_in_one_line(folder: Path) -> None:
    reward = "answers.rate.raters={bad: {kind: reward_model, model: %s, dtype: float32}}"
    cases = [
        (reward % f"{folder}/model", "answers.rate.raters.bad.model .* has no trained weights for score.weight"),
        (reward % "./nothing/there", "answers.rate.raters.bad.model './nothing/there' is no folder"),
        (
            "answers.rate.raters={bad: {kind: implicit, model: ./nothing/there}}",
            "answers.rate.raters.bad.model './nothing",
        ),
    ]
    for raters, said in cases:
        with pytest.raises(ModelError, match=said) as error:
            rate_answers(recipe(folder, raters, out="refused"))
        assert "\n" not in str(error.value)


def test_a_judge_over_http_rates_by_the_truth_whatever_fails_and_is_paid_once(folder: Path) -> None:
    raters = "answers.rate.raters={truth: {kind: playground}, judge: {kind: judge, reading: expected}}"
    faults = Faults(too_many=0.05, retry_after="0.1", broken=0.05, cut=0.05)
    with serving(JudgeServer(true_share, faults)) as server:
        judge = f"answers.judge={{http: {{url: '{server.url}', model: judge}}}}"
        report = rate_answers(recipe(folder, raters, judge, out="judged"))
        asked = sum(server.asked.values())
        again = rate_answers(recipe(folder, raters, judge, "output.name=again", out="judged"))
        assert sum(server.asked.values()) == asked
    assert lines(again) == lines(report)
    assert sum(server.paid.values()) == len(server.paid) == 46
    for answer in answers(report):
        assert answer["ratings"]["judge"] == pytest.approx(answer["ratings"]["truth"], abs=1e-5)
    assert report.agreements["truth", "judge"].accuracy == 1


def test_what_a_judge_cannot_say_is_a_row_with_a_reason_and_its_budget_is_kept(folder: Path) -> None:
    rows = [{"prompt": "sort b a", "answers": ["a b", "b a", "b"]}, {"prompt": "Why?", "answers": ["x", "y"]}]
    changed = [
        f"answers.rate.source.path={write_rows(folder / 'why.jsonl', rows)}",
        "answers.rate.raters={judge: {kind: judge}}",
        "answers.rate.max_missing=0.5",
    ]
    with serving(JudgeServer(true_share)) as server:
        http = f"url: '{server.url}', model: judge, at_once: 1, prices: {{input: 1, output: 10}}"
        plan = plan_ratings(recipe(folder, *changed, f"answers.judge={{http: {{{http}}}}}", out="why"))
        assert not server.begun
        with pytest.raises(EndpointError, match="budget"):
            rate_answers(
                recipe(folder, *changed, f"answers.judge={{http: {{{http}, budget: {{calls: 3}}}}}}", out="why")
            )
        assert len(server.begun) == 3
        report = rate_answers(recipe(folder, *changed, f"answers.judge={{http: {{{http}}}}}", out="why"))
    assert len(server.begun) == 5
    assert "judge: 5 questions to judge, of which 0 are answered and cost nothing" in plan.describe()
    assert "judge: about 5 calls, " in plan.describe()
    assert report.raters["judge"].missing == {"no_mark": 2}
    assert report.quarantined == {"too_few_rated_answers": 1}
    assert [one["score"] for one in answers(report)] == pytest.approx([10, 1, 5.5])
