"""MT-Bench on made-up questions: templates by turn and category, averages by hand, impossible grades."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.benchmarks.benchmark import JudgeQuestion
from mixdpo_ray.benchmarks.mt_bench import MTBench
from mixdpo_ray.benchmarks.verdict import JudgeReply
from mixdpo_ray.errors import EvaluationError
from tests.benchmarks.made_benchmarks import judged, write_lines

TEMPLATES = {
    "single-v1": "{question} | {answer}",
    "single-v1-multi-turn": "{question_1} | {answer_1} | {question_2} | {answer_2}",
    "single-math-v1": "{question} | {ref_answer_1} | {answer}",
    "single-math-v1-multi-turn": (
        "{question_1} | {ref_answer_1} | {question_2} | {ref_answer_2} | {answer_1} | {answer_2}"
    ),
}
ANSWERS = {"81": ("w1", "w2"), "111": ("m1", "m2 {ref_answer_2}")}


def made(folder: Path, references: tuple[int, ...] = (111,), **settings: object) -> MTBench:
    questions: list[dict[str, object]] = [
        {"question_id": 81, "category": "writing", "turns": ["Write", "Shorter"]},
        {"question_id": 111, "category": "math", "turns": ["Area?", "And?"], "reference": ["old", "old"]},
    ]
    rows: list[dict[str, object]] = [
        {"question_id": item, "choices": [{"index": 0, "turns": ["3", "5 pi"]}]} for item in (81, *references)
    ]
    templates: list[dict[str, object]] = [
        {"name": name, "system_prompt": "Grade.", "prompt_template": text} for name, text in TEMPLATES.items()
    ]
    files = {
        "prompts": write_lines(folder / "question.jsonl", questions),
        "references": write_lines(folder / "reference.jsonl", rows),
        "template": write_lines(folder / "judge_prompts.jsonl", templates),
    }
    return MTBench.model_validate({**files, **settings})


def test_the_second_turn_is_graded_with_the_whole_conversation_and_math_with_its_reference(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    template = benchmark.read_template()
    asked = [
        question.messages[1]["content"]
        for prompt in benchmark.read_prompts()
        for question in benchmark.questions(prompt, ANSWERS[prompt.item], template)
    ]
    assert asked == [
        "Write | w1",
        "Write | w1 | Shorter | w2",
        "Area? | 3 | m1",
        "Area? | 3 | And? | 5 pi | m1 | m2 {ref_answer_2}",
    ]


def test_averages_by_hand(tmp_path: Path) -> None:
    """Grades 8, 6 and 3, 1: mean 4.5, means of the questions 7 and 2, so their error is sqrt(12.5 / 2) = 2.5."""
    grades = {("81", "turn_1"): 8, ("81", "turn_2"): 6, ("111", "turn_1"): 3, ("111", "turn_2"): 1}
    benchmark = made(tmp_path)
    arm = judged(benchmark, benchmark.read_prompts(), ANSWERS, lambda q: JudgeReply(f"[[{grades[q.item, q.game]}]]"))
    scores = benchmark.scores({"arm": arm})["arm"].scores
    values = {name: score.value for name, score in scores.items()}
    assert values == {
        "rating": 4.5,
        "first_turn": 5.5,
        "second_turn": 3.5,
        "math": 2.0,
        "writing": 7.0,
        "average_length": (2 + 2 + 2 + 17) / 4,
    }
    assert scores["rating"].error == pytest.approx(2.5)


def test_twelve_of_ten_is_counted_and_refused(tmp_path: Path) -> None:
    """The official script takes the 12; leaving it out in silence would be no better."""

    def judge(question: JudgeQuestion) -> JudgeReply:
        return JudgeReply("[[12]]" if question.item == "81" and question.game == "turn_2" else "[[4]]")

    benchmark = made(tmp_path)
    arm = judged(benchmark, benchmark.read_prompts(), ANSWERS, judge)
    with pytest.raises(EvaluationError, match=r"1 of 4 verdicts are missing.*out_of_range"):
        benchmark.scores({"arm": arm})
    scored = made(tmp_path, max_missing=0.25).scores({"arm": arm})["arm"]
    assert scored.missing == {"out_of_range": 1}
    assert scored.scores["rating"].value == 4


def test_a_category_without_a_readable_grade_has_no_score_and_the_others_have(tmp_path: Path) -> None:
    benchmark = made(tmp_path, max_missing=0.5)
    grade = {"81": "none", "111": "[[4]]"}
    arm = judged(benchmark, benchmark.read_prompts(), ANSWERS, lambda question: JudgeReply(grade[question.item]))
    scores = benchmark.scores({"arm": arm})["arm"].scores
    assert list(scores) == ["rating", "first_turn", "second_turn", "math", "average_length"]
    assert scores["rating"].value == scores["math"].value == 4


def test_a_missing_reference_and_a_missing_template_are_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"no reference for question 111 \(math\)"):
        made(tmp_path, references=()).read_prompts()
    benchmark = made(tmp_path)
    write_lines(tmp_path / "judge_prompts.jsonl", [{"name": "single-v1", "prompt_template": "{question} {answer}"}])
    with pytest.raises(EvaluationError, match="a row lacks 'system_prompt'"):
        benchmark.read_template()
    alone: dict[str, object] = {
        "name": "single-v1",
        "system_prompt": "Grade.",
        "prompt_template": "{question} {answer}",
    }
    write_lines(tmp_path / "judge_prompts.jsonl", [alone])
    with pytest.raises(EvaluationError, match="no template is named single-v1-multi-turn"):
        benchmark.read_template()
    write_lines(tmp_path / "judge_prompts.jsonl", [{**alone, "prompt_template": "{question}"}])
    with pytest.raises(EvaluationError, match=r"single-v1: the template lacks \{answer\}; add it"):
        benchmark.read_template()
    write_lines(tmp_path / "question.jsonl", [{"question_id": 81, "category": "writing"}])
    with pytest.raises(EvaluationError, match="a row lacks 'turns'"):
        benchmark.read_prompts()
