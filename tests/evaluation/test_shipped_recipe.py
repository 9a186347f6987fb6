"""The dry run of the paper's evaluation, on made-up files of the published sizes: prompts, calls, price and time."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.interchange import alpaca_outputs, arena_answers, mt_bench_answers
from mixdpo_ray.benchmarks.rows import json_lines
from mixdpo_ray.evaluation.dry_run import EvaluationEstimate
from mixdpo_ray.evaluation.evaluate import evaluate
from mixdpo_ray.recipe.file import load_recipe
from tests.benchmarks.made_benchmarks import ARENA, CHATML, write_json, write_lines
from tests.benchmarks.test_mt_bench import TEMPLATES

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "llama3-8b-evaluate.yaml"
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")


def write_made_up_benchmarks(folder: Path) -> None:
    """In the benchmarks' formats and sizes."""
    for name in ("alpaca_eval/gpt4_turbo", "arena_hard/model_answer", "mt_bench"):
        (folder / name).mkdir(parents=True)
    prompts = [BenchmarkPrompt(f"{number}", (f"Task {number}",)) for number in range(805)]
    answers = {prompt.item: ("baseline " * 250,) for prompt in prompts}
    (folder / "alpaca_eval/gpt4_turbo/model_outputs.json").write_bytes(alpaca_outputs("gpt4_turbo", prompts, answers))
    (folder / "alpaca_eval/alpaca_eval_clf.txt").write_text(CHATML)

    rows = [{"question_id": prompt.item, "turns": [{"content": prompt.turns[0]}]} for prompt in prompts[:500]]
    (folder / "arena_hard/question.jsonl").write_bytes(json_lines(rows))
    baseline = arena_answers("gpt-4-0314", prompts[:500], answers)
    (folder / "arena_hard/model_answer/gpt-4-0314.jsonl").write_bytes(baseline)
    write_json(folder / "arena_hard/judge.yaml", ARENA)

    questions: list[dict[str, object]] = [
        {"question_id": 81 + number, "category": CATEGORIES[number // 10], "turns": ["Do", "Do more"]}
        for number in range(80)
    ]
    write_lines(folder / "mt_bench/question.jsonl", questions)
    references = {f"{101 + number}": ("this", "that") for number in range(30)}
    (folder / "mt_bench/reference_answer.jsonl").write_bytes(mt_bench_answers("gpt-4", references))
    templates: list[dict[str, object]] = [
        {"name": name, "system_prompt": "Grade.", "prompt_template": text} for name, text in TEMPLATES.items()
    ]
    write_lines(folder / "mt_bench/judge_prompts.jsonl", templates)


def test_the_dry_run_of_the_papers_evaluation_tells_prompts_calls_price_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_made_up_benchmarks(tmp_path / "benchmarks")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    arms = "answers.evaluate.arms={sft: ./no/sft, dpo: outputs/runs/dpo, mixdpo: outputs/runs/mixdpo}"
    told = evaluate(load_recipe(str(RECIPE), [arms]), dry_run=True)
    assert isinstance(told, EvaluationEstimate)
    found = {one.name: (one.prompts, one.arms, one.assumed, one.questions) for one in told.benchmarks}
    assert found == {
        "alpaca_eval_2": (805, 3, 2415, 4830),
        "arena_hard_v0_1": (500, 3, 1500, 3000),
        "mt_bench": (80, 3, 480, 480),
    }
    assert told.asking is not None
    assert told.asking.cost.calls == 8310
    assert 100 < told.asking.cost.price(told.asking.settings.prices) < 300
    text = told.describe()
    assert "8,310 calls" in text
    assert ", price 1" in text
    assert "by the limits per minute" in text
    assert text.count("its answers are assumed") == 3
    assert not list(tmp_path.glob("outputs/*"))


def test_the_recipe_says_what_it_was_not_run_on() -> None:
    assert "# Not run: no 8B model and no judge was asked with this file." in RECIPE.read_text()
