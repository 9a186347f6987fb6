"""A run against the model before it: sampled, judged and scored, and nothing of it twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdpo_ray.cluster.run_record import RunRecord, arm_folder
from mixdpo_ray.errors import EndpointError, MixDPOError, RecipeError, StorageError
from mixdpo_ray.evaluation.arms import arms_of_evaluation
from mixdpo_ray.evaluation.dry_run import EvaluationEstimate
from mixdpo_ray.evaluation.evaluate import evaluate
from mixdpo_ray.evaluation.output import EvaluateReport
from mixdpo_ray.evaluation.results import EvaluationResults
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from mixdpo_ray.playground.prompts import Prompt, quality
from mixdpo_ray.playground.sample import write_tiny_model
from tests.evaluation.small_evaluation import PROMPTS, evaluation_recipe, own, write_evaluation_files

HALF_ASKED = 7  # calls


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluation")
    write_evaluation_files(folder)
    return folder


def evaluated(folder: Path, *overrides: str) -> EvaluateReport:
    report = evaluate(evaluation_recipe(folder, *overrides))
    assert isinstance(report, EvaluateReport)
    assert EvaluationResults.from_json(Path(report.folder, "results.json").read_bytes()) == report.results
    return report


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_the_verdict_on_a_run_and_the_model_before_it_is_their_true_quality(folder: Path) -> None:
    """Of the recipe's own held-out prompts, where nothing but the judge is named."""
    report = evaluated(folder)
    (found,) = report.results.benchmarks
    (trained,) = found.arms
    assert (found.references, trained.name, found.against) == ("before", "trained", "")
    assert found.prompts == trained.answers == 18
    texts = {}
    for arm in ("before", "trained"):
        rows = json.loads(Path(report.folder, "own", arm, "outputs.json").read_text())
        texts[arm] = {row["instruction"]: row["output"] for row in rows}
    won = 0.0
    for prompt in texts["trained"]:
        mine, theirs = (quality(Prompt.of_text(prompt), texts[arm][prompt]) for arm in ("trained", "before"))
        won += 1.0 if mine > theirs else 0.5 if mine == theirs else 0.0
    assert trained.scores["win_rate"].value == pytest.approx(100 * won / 18)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_judge_that_fails_and_a_job_that_ends_half_way_pay_no_verdict_twice(folder: Path) -> None:
    faults = Faults(too_many=0.1, retry_after="0.05", broken=0.1, cut=0.1)
    with serving(JudgeServer(lambda _, first, second: float(len(first) > len(second)), faults)) as server:
        judge = json.dumps({"engine": "http", "http": {"url": server.url, "model": "j", "prices": {"input": 5}}})
        asked = [own(folder), f"answers.judge={judge}", "output.name=paid"]
        asked += [f"answers.evaluate.arms={{before: {folder}/model, trained: {folder}/out/runs/recipe}}"]
        with pytest.raises(EndpointError, match=rf"budget.calls \({HALF_ASKED}\)"):
            evaluate(evaluation_recipe(folder, *asked, f"answers.judge.http.budget.calls={HALF_ASKED}"))
        assert 0 < len(server.begun) <= HALF_ASKED
        half = len(server.paid)
        results = evaluated(folder, *asked).results
        assert len(server.paid) > half
        assert set(server.paid.values()) == {1}
        assert results.cached == half
        assert results.spent.price > 0
        calls = len(server.begun)
        again = evaluated(folder, *asked).results
        assert len(server.begun) == calls
    assert (again.spent.calls, again.cached) == (0, len(server.paid))
    assert again.benchmarks == results.benchmarks
    assert again.benchmarks[0].cost.calls == len(server.paid)


def test_a_dry_run_tells_calls_tokens_and_price_without_ray_and_counts_what_is_there(folder: Path) -> None:
    http = {"url": "http://127.0.0.1:1/v1", "model": "m", "prices": {"output": 10}, "requests_per_minute": 6}
    judge = f"answers.judge={json.dumps({'engine': 'http', 'http': http})}"
    decoding = "answers.evaluate.decoding={own: {max_new_tokens: 9}}"
    told = evaluate(evaluation_recipe(folder, own(folder), judge, decoding), dry_run=True)
    assert isinstance(told, EvaluationEstimate)
    text = told.describe()
    assert "own: 6 prompts, 2 arms; 12 answers, of which 0 are there and 12 to be drawn (at most 108 tokens)" in text
    assert "12 questions to m, of which 0 are answered" in text
    assert "12 calls" in text
    assert "price 0.1229" in text  # 12 answers of 1,024 tokens
    assert "about 2 minutes" in text or "about 2 min" in text
    absent = "answers.evaluate.arms={a: outputs/runs/none, b: outputs/runs/neither}"
    warned = evaluate(evaluation_recipe(folder, own(folder), judge, absent), dry_run=True).describe()
    assert "warning: arm a: answers.evaluate.arms.a" in warned
    assert "12 to be drawn" in warned


@pytest.mark.parametrize(
    ("overrides", "kind", "told"),
    [
        (["answers.judge=null"], RecipeError, "answers.judge: the recipe names none"),
        (
            ["answers.evaluate.benchmarks={own: {prompts: nowhere.jsonl}}"],
            StorageError,
            "own: nowhere.jsonl: .*No such file",
        ),
        (["data.heldout.fraction=0"], RecipeError, "data.heldout holds out no pairs"),
        (["answers.evaluate.arms={one: a/b/c}"], RecipeError, "names 'one' alone, and not every prompt of own"),
        (["output.name=other"], RecipeError, "out/runs/other is not there: run jobs/train.py first"),
        (
            ["answers.evaluate.benchmarks={mt_bench: {prompts: a, references: b, template: c}}"],
            RecipeError,
            "engine playground judges own alone, and not mt_bench",
        ),
        (
            ["answers.judge={engine: http, http: {model: m, key_variable: NO_SUCH_KEY}}"],
            EndpointError,
            "answers.judge.http.key_variable NO_SUCH_KEY is not set",
        ),
        (["answers.evaluate.arms={a: nothing.json, b: x}"], StorageError, "own, arm a: nothing.json: .*No such file"),
        (["answers.evaluate.comparison=outputs/runs/none"], RecipeError, "is no comparison"),
    ],
)
def test_what_is_wrong_is_told_in_one_line_before_anything_is_drawn(
    folder: Path, overrides: list[str], kind: type[MixDPOError], told: str
) -> None:
    named = [own(folder), *overrides] if "data" not in overrides[0] else overrides
    with pytest.raises(kind, match=told) as raised:
        evaluate(evaluation_recipe(folder, *named))
    assert "\n" not in str(raised.value)


def test_answers_may_come_from_a_file_and_need_not_be_all(folder: Path, tmp_path: Path) -> None:
    rows = [{"instruction": prompt, "output": f"answer to {prompt}"} for prompt in PROMPTS[:4]]
    (tmp_path / "own-answers.json").write_text(json.dumps(rows))
    arms = {"file": f"{tmp_path}/{{benchmark}}-answers.json", "other": f"{folder}/model"}
    told = evaluate(
        evaluation_recipe(folder, own(folder), f"answers.evaluate.arms={json.dumps(arms)}"), dry_run=True
    ).describe()
    assert "own: 4 prompts, 2 arms; 10 answers" in told


def test_the_arms_of_a_comparison_are_its_kept_models_by_seed(folder: Path, tmp_path: Path) -> None:
    compared = evaluation_recipe(
        folder,
        "compare.arms={dpo: {}, simpo: {objective.name: simpo}}",
        "compare.seeds=[0, 1]",
        "compare.untrained=untouched",
        "compare.keep_models=true",
    )
    comparison = RunRecord(str(tmp_path / "compared"))
    comparison.write_recipe(compared, {})
    for seed in (0, 1):
        record = RunRecord(f"{comparison.folder}/{arm_folder('dpo', seed)}")
        write_tiny_model(Path(record.model))
        record.write_recipe(compared, {})
    arms = arms_of_evaluation(evaluation_recipe(folder, f"answers.evaluate.comparison={comparison.folder}"))
    assert [arm.name for arm in arms] == [
        f"{name}, seed {seed}" for seed in (0, 1) for name in ("untouched", "dpo", "simpo")
    ]
    assert arms[0].model is None  # the recipe's own
    assert arms[4].model == f"{comparison.folder}/{arm_folder('dpo', 1)}"
    comparison.write_recipe(evaluation_recipe(folder, "compare.arms={dpo: {}, simpo: {}}"), {})
    with pytest.raises(StorageError, match="has kept no models: repeat"):
        arms_of_evaluation(evaluation_recipe(folder, f"answers.evaluate.comparison={comparison.folder}"))
