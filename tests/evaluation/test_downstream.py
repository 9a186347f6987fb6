"""Downstream tasks: what lm-eval reports becomes scores with intervals, and each is asked for once."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from mixdpo_ray.errors import EvaluationError, RecipeError
from mixdpo_ray.evaluation.arms import arms_of_evaluation
from mixdpo_ray.evaluation.downstream import LM_EVAL, downstream, evaluated_task, refuse_impossible_tasks
from mixdpo_ray.evaluation.evaluate import evaluate
from mixdpo_ray.evaluation.page import evaluation_page
from mixdpo_ray.evaluation.picture import evaluation_picture
from mixdpo_ray.evaluation.results import EvaluationResults
from mixdpo_ray.evaluation.task_process import AskedTask, TaskFigures, TaskRequest, figures_of
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.recipe.extras import Extra
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.tasks import TasksSettings
from mixdpo_ray.training.settings import ModelSettings
from tests.evaluation.small_evaluation import evaluation_recipe, own, write_evaluation_files

HERE = find_spec(LM_EVAL.module) is not None
TASK = """
task: tiny_letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/letters.jsonl}}}}
test_split: test
fewshot_split: test
output_type: multiple_choice
doc_to_text: "{{{{prompt}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
metric_list: [{{metric: acc}}]
"""


def sample(doc: int, filtered: str = "none", **metrics: float) -> dict[str, object]:
    return {"doc_id": doc, "filter": filtered, "metrics": list(metrics), **metrics}


def reported() -> dict[str, object]:
    """A group of two parts, as lm-eval 0.4.13 reports it."""
    return {
        "results": {
            "both": {
                "alias": "both",
                "sample_len": 5,
                "acc,none": 0.6,
                "acc_stderr,none": "N/A",
                "exact_match,strict-match": 0.2,
                "perplexity,none": 3.5,
            },
            "one": {"acc,none": 0.5},
        },
        "samples": {
            "one": [sample(0, acc=1.0, perplexity=2.0), sample(1, acc=0.0, perplexity=9.0)],
            "two": [
                *(sample(doc, acc=float(doc > 0), perplexity=1.0) for doc in range(3)),
                *(sample(doc, "strict-match", exact_match=float(doc == 9)) for doc in range(3)),
            ],
        },
    }


def test_a_group_has_the_questions_of_its_parts_and_what_is_no_mean_has_no_interval() -> None:
    figures = figures_of(AskedTask("both", 5, "file"), reported())
    assert figures.values == {"acc": 0.6, "strict-match/exact_match": 0.2, "perplexity": 3.5}
    assert figures.by_question == {"acc": {"one/0": 1.0, "one/1": 0.0, "two/0": 0.0, "two/1": 1.0, "two/2": 1.0}}
    assert figures.questions == 5
    assert TaskFigures.from_json(figures.to_json()) == figures


def test_a_request_arrives_in_the_other_process_as_it_was() -> None:
    asked = TaskRequest(ModelSettings(path="m", dtype="float32"), (AskedTask("a", 2, "f"),), "t", 3, 8, True, False)
    assert TaskRequest.from_json(asked.to_json()) == asked


def figures(right: int, questions: int = 40) -> TaskFigures:
    values = {f"t/{number}": float(number < right) for number in range(questions)}
    strict = {"acc": values, "strict-match/acc": values}
    return TaskFigures("t", 5, questions, {"acc": right / questions, "bleu": 1.5}, strict)


def test_a_task_is_shown_as_a_benchmark_without_a_judge() -> None:
    models = {name: ModelSettings(path=f"models/{name}") for name in ("base", "tuned")}
    task = evaluated_task({"base": figures(10), "tuned": figures(30)}, models, "base")
    assert (task.name, task.kind, task.main, task.prompts) == ("t", "lm-eval, 5 shots", "acc", 40)
    assert [arm.scores["acc"].value for arm in task.arms] == [25.0, 75.0]
    assert task.arms[0].scores["acc"].low < 25 < task.arms[0].scores["acc"].high
    (one, strict) = task.differences
    assert (one.arm, one.against, one.apart.value, one.apart.excludes_zero) == ("tuned", "base", 50.0, True)
    assert strict.score == "strict-match/acc"
    assert task.arms[0].notes == ("bleu 1.5, which is no mean over questions: its interval is not known",)
    results = EvaluationResults("r", "nobody", (task,))
    assert EvaluationResults.from_json(results.to_json()) == results
    page = evaluation_page(results).decode()
    assert "accuracy, %" in page
    assert "strict-match: accuracy, %" in page
    assert "tokens read" not in page.split('id="cost"')[0]
    assert evaluation_picture(results).startswith(b"\x89PNG")


def test_arms_of_one_task_have_one_scale_whatever_their_values_are() -> None:
    """Means of 0.5 and of 2 on a scale that goes beyond 1: 1.5 apart, and not 50 percent and 2."""
    told = {
        name: TaskFigures("t", 0, 4, {"bleu": mean}, {"bleu": {f"t/{number}": mean for number in range(4)}})
        for name, mean in (("weak", 0.5), ("strong", 2.0))
    }
    task = evaluated_task(told, {name: ModelSettings(path=name) for name in told}, "weak")
    assert [arm.scores["bleu"].value for arm in task.arms] == [0.5, 2.0]
    assert task.differences[0].apart.value == 1.5


def test_a_task_of_which_nothing_is_a_mean_has_no_score_and_says_so() -> None:
    told = TaskFigures("t", 1, 4, {"bleu": 1.5})
    task = evaluated_task({"only": told}, {"only": ModelSettings(path="m")}, "only")
    assert (task.kind, task.against, task.arms[0].scores) == ("lm-eval, one shot", "", {})
    assert task.arms[0].no_score == "none of its metrics is a mean over questions"


def written_recipe(folder: Path, tasks: str, *overrides: str) -> Recipe:
    (folder / "recipe.yaml").write_text(
        f"model: {{path: {folder}/a, dtype: float32}}\ndata: {{source: {{path: {folder}/letters.jsonl}}}}\n"
        "cluster: {num_workers: 1, use_gpu: false}\n"
        f"answers: {{evaluate: {{tasks: {tasks}, arms: {{a: {folder}/a, b: {folder}/b, filed: answers.json}}}}}}\n"
    )
    return load_recipe(str(folder / "recipe.yaml"), [f"output.storage_path={folder}/out", *overrides])


def test_tasks_that_cannot_be_run_are_refused_in_one_line(tmp_path: Path) -> None:
    refuse_impossible_tasks(written_recipe(tmp_path, "null"))
    missing = Extra("lm-eval", "lm_eval", "answers.evaluate.tasks", "leave that out").lacking()
    assert missing == "answers.evaluate.tasks needs lm_eval: pip install 'mixdpo_ray[lm-eval]', or leave that out"
    with pytest.raises(RecipeError, match="is no folder; correct the path" if HERE else "pip install"):
        refuse_impossible_tasks(written_recipe(tmp_path, f"{{folder: {tmp_path}/none}}"))
    with pytest.raises(RecipeError, match="engine http has none" if HERE else "pip install"):
        refuse_impossible_tasks(written_recipe(tmp_path, "{}", "answers.sample.engine=http"))


def test_a_dry_run_tells_of_tasks_and_of_what_is_lacking(tmp_path: Path) -> None:
    write_evaluation_files(tmp_path)
    asked = evaluation_recipe(tmp_path, own(tmp_path), "answers.evaluate.tasks={shots: {mmlu: 5, piqa: 1}}")
    told = evaluate(asked, dry_run=True).describe()
    assert "tasks: mmlu (5 shots), piqa (one shot) by 2 models, in lm-eval, at no price" in told
    assert HERE or "warning: answers.evaluate.tasks needs lm_eval: pip install" in told


def test_the_papers_tasks_and_shots_are_the_default() -> None:
    assert TasksSettings().shots == {
        "mmlu": 5, "truthfulqa_mc2": 0, "hellaswag": 10, "arc_challenge": 25, "gsm8k": 5, "winogrande": 5,
    }  # fmt: skip


@pytest.mark.cluster
@pytest.mark.skipif(not HERE, reason="lm-eval is an extra that this environment does not have")
@pytest.mark.usefixtures("local_ray")
def test_a_task_of_ones_own_is_run_once_for_each_model(tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "a")
    write_tiny_model(tmp_path / "b", seed=1)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "tiny.yaml").write_text(TASK.format(folder=tmp_path))
    rows = [{"prompt": f"sort {a} {b}", "choices": [f"{a} {b}", f"{b} {a}"], "gold": 0} for a in "abc" for b in "def"]
    (tmp_path / "letters.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = written_recipe(tmp_path, f"{{folder: {tmp_path}/tasks, shots: {{tiny_letters: 1}}}}")
    refuse_impossible_tasks(recipe)
    arms = arms_of_evaluation(recipe)
    (task,) = downstream(recipe, arms)
    assert task.prompts == 9
    assert {arm.name: 0 <= arm.scores["acc"].value <= 100 for arm in task.arms} == {"a": True, "b": True}
    began = time.monotonic()
    assert downstream(recipe, arms) == (task,)
    assert time.monotonic() - began < 2
    other = written_recipe(tmp_path, f"{{folder: {tmp_path}/tasks, shots: {{unknown_one: 0}}}}")
    with pytest.raises(EvaluationError, match="lm-eval ended with status 1 in unknown_one"):
        downstream(other, arms)
