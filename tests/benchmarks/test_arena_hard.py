"""Both versions of Arena-Hard on made-up prompts: games, strong verdicts, attempts, baselines and categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mixdpo_ray.benchmarks.arena_hard import ArenaHard
from mixdpo_ray.benchmarks.arena_hard_v0_1 import ArenaHardV01
from mixdpo_ray.benchmarks.arena_hard_v2 import ArenaHardV2
from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt, JudgedArm, JudgeQuestion
from mixdpo_ray.benchmarks.interchange import arena_answers
from mixdpo_ray.benchmarks.pairwise import BOTH_ORDERS
from mixdpo_ray.benchmarks.verdict import JudgeReply
from mixdpo_ray.errors import EvaluationError
from tests.benchmarks.made_benchmarks import ARENA, judged, write_json, write_lines

ITEMS = [f"q{n}" for n in range(6)]
CATEGORY = {item: "creative_writing" if n % 3 == 2 else "hard_prompt" for n, item in enumerate(ITEMS)}
BASELINES = {"hard_prompt": "o3-mini-2025-01-31", "creative_writing": "gemini-2.0-flash-001"}
ANSWERS = {item: (f"model {item}",) for item in ITEMS}


def made(folder: Path, version: type[ArenaHard]) -> ArenaHard:
    rows: list[dict[str, object]] = [
        {"uid": item, "category": CATEGORY[item], "prompt": f"Do {item}"} for item in ITEMS
    ]
    if version is ArenaHardV01:
        rows = [{"question_id": item, "turns": [{"content": f"Do {item}"}]} for item in ITEMS]
    prompts = [BenchmarkPrompt(item, (f"Do {item}",)) for item in ITEMS]
    files = []
    for model in ("gpt-4-0314", *BASELINES.values()):
        files.append(str(folder / f"{model}.jsonl"))
        Path(files[-1]).write_bytes(arena_answers(model, prompts, {item: (f"{model} {item}",) for item in ITEMS}))
    template = (
        {**ARENA, "system_prompt": dict.fromkeys(BASELINES, "Give a verdict.")} if version is ArenaHardV2 else ARENA
    )
    return version.model_validate(
        {
            "prompts": write_lines(folder / "question.jsonl", rows),
            "references": files,
            "template": write_json(folder / "judge.yaml", template),  # JSON is YAML
        }
    )


def test_game_one_shows_the_baseline_as_a(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV01)
    first, second = benchmark.questions(benchmark.read_prompts()[0], ("{ANSWER_A}",), benchmark.read_template())
    assert first.messages[1]["content"] == "Q Do q0\nA gpt-4-0314 q0\nB {ANSWER_A}"
    assert second.messages[1]["content"] == "Q Do q0\nA {ANSWER_A}\nB gpt-4-0314 q0"


def test_a_strong_verdict_is_three_battles_by_hand(tmp_path: Path) -> None:
    """q0: 3 won and 1 tied; q1: 2 lost; q2: game 2 alone, lost. 3.5 of 7 battles."""
    benchmark = made(tmp_path, ArenaHardV01)
    prompts = {prompt.item: prompt for prompt in benchmark.read_prompts()[:3]}
    marks = {"q0": ("[[B>>A]]", "[[A=B]]"), "q1": ("[[A>B]]", "[[B>A]]"), "q2": ("no", "[[B>A]]")}
    verdicts = {
        (item, game): ArenaHardV01.verdict(said)
        for item, both in marks.items()
        for game, said in zip(BOTH_ORDERS, both, strict=True)
    }
    arm = JudgedArm(prompts, ANSWERS, verdicts)
    statistics = benchmark.statistics({"arm": arm})["arm"]
    assert statistics["score"].value(np.ones(3)) == pytest.approx(100 * 3.5 / 7)


def test_a_prompt_of_v2_counts_with_both_games_or_not_at_all(tmp_path: Path) -> None:
    def judge(question: JudgeQuestion) -> JudgeReply:
        return JudgeReply("" if question.item == "q0" and question.game == "model_first" else "[[A>B]]")

    old, new = made(tmp_path, ArenaHardV01), made(tmp_path, ArenaHardV2)
    for benchmark, prompts, battles in ((old, 6, 11), (new, 5, 10)):
        arm = judged(benchmark, benchmark.read_prompts(), ANSWERS, judge)
        counted = benchmark.battles(arm)
        assert (len(counted), sum(count for _, count in counted.values())) == (prompts, battles)


def test_v0_1_asks_once_more_where_a_reply_has_no_mark_and_reads_all_that_was_said(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV01)
    prompt, template = benchmark.read_prompts()[0], benchmark.read_template()
    question = benchmark.questions(prompt, ("x",), template)[0]
    more = benchmark.again(question, JudgeReply("Hm."), template)
    assert more is not None
    assert [message["content"] for message in more.messages[2:]] == ["Hm.", "Now the verdict."]
    assert benchmark.read(more, JudgeReply("[[B>A]]")).value == 0
    assert benchmark.again(more, JudgeReply("Hm."), template) is None
    assert benchmark.again(question, JudgeReply("[[A>B]] [[B>A]]"), template) is None  # disagreement is final
    assert benchmark.read(question, JudgeReply("thinking", cut_off=True)).reason == "cut_off"
    empty = benchmark.again(question, JudgeReply(""), template)
    assert empty is not None
    assert benchmark.again(empty, JudgeReply(""), template) is None
    new = made(tmp_path, ArenaHardV2)
    assert new.again(question, JudgeReply("Hm."), template) is None


def test_each_category_of_v2_has_its_baseline_and_its_score(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV2)
    prompts = benchmark.read_prompts()
    assert [prompt.reference[0] for prompt in prompts[:3]] == [
        f"{BASELINES[CATEGORY[item]]} {item}" for item in ITEMS[:3]
    ]

    def judge(question: JudgeQuestion) -> JudgeReply:
        """The model wins all creative writing, and ties elsewhere."""
        win = "[[A>B]]" if question.game == "model_first" else "[[B>A]]"
        return JudgeReply(win if CATEGORY[question.item] == "creative_writing" else "[[A=B]]")

    scored = benchmark.scores({"arm": judged(benchmark, prompts, ANSWERS, judge)}, resamples=50)["arm"].scores
    assert (scored["hard_prompt/score"].value, scored["creative_writing/score"].value) == (50.0, 100.0)
    assert list(benchmark.headline(scored)) == [
        "creative_writing/style_controlled_score",
        "hard_prompt/style_controlled_score",
    ]


def test_a_category_without_a_verdict_has_no_score_and_the_others_have(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV2).model_copy(update={"max_missing": 0.9})

    def judge(question: JudgeQuestion) -> JudgeReply:
        return JudgeReply("[[A=B]]" if CATEGORY[question.item] == "creative_writing" else "Hm.")

    scored = benchmark.scores({"arm": judged(benchmark, benchmark.read_prompts(), ANSWERS, judge)}, resamples=50)
    assert list(benchmark.headline(scored["arm"].scores)) == ["creative_writing/style_controlled_score"]


def test_another_models_answers_are_no_baseline(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV2)
    some = benchmark.model_copy(update={"references": benchmark.references[:2]})
    with pytest.raises(EvaluationError, match=r"references: no answer of 'gemini-2\.0-flash-001' to prompt q2"):
        some.read_prompts()


def test_one_system_message_for_both_categories_of_v2_is_refused(tmp_path: Path) -> None:
    """That of hard prompts asks for an answer of the judge's own, that of creative writing does not."""
    benchmark = made(tmp_path, ArenaHardV2)
    write_json(tmp_path / "judge.yaml", ARENA)
    with pytest.raises(EvaluationError, match="give them by category"):
        benchmark.read_template()


def test_a_category_without_a_system_message_is_named(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV2)
    write_json(tmp_path / "judge.yaml", {**ARENA, "system_prompt": {"hard_prompt": "Give a verdict."}})
    creative = benchmark.read_prompts()[2]
    with pytest.raises(EvaluationError, match="system_prompt has no text for 'creative_writing'; add it"):
        benchmark.questions(creative, ("x",), benchmark.read_template())


def test_a_template_without_its_parts_is_refused(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV01)
    for content, reason in (
        ({"system_prompt": "x"}, "lacks system_prompt or prompt_template"),
        ({"system_prompt": "x", "prompt_template": []}, "lacks system_prompt or prompt_template"),
        ({"system_prompt": "x", "prompt_template": None}, "lacks system_prompt or prompt_template"),
        ({"system_prompt": "x", "prompt_template": "{QUESTION} {ANSWER_A}"}, r"lacks \{ANSWER_B\}"),
        ({"system_prompt": "x", "prompt_template": ["{question_1} {answer_1}"]}, r"lacks \{answer_2\}"),
    ):
        write_json(tmp_path / "judge.yaml", content)
        with pytest.raises(EvaluationError, match=reason):
            benchmark.read_template()


def test_a_template_that_is_no_yaml_is_named_in_one_line(tmp_path: Path) -> None:
    benchmark = made(tmp_path, ArenaHardV01)
    (tmp_path / "judge.yaml").write_text("system_prompt: [x\nprompt_template: y\n")
    with pytest.raises(EvaluationError, match=r"judge\.yaml: no YAML \(.*line 2, column 16.*\); correct it$"):
        benchmark.read_template()
