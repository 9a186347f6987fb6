"""Answers before a judge: what is asked, what comes out, and what is left out; without Ray and without a model."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mixdpo_ray.benchmarks.arena_hard_v0_1 import ArenaHardV01
from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.interchange import (
    read_alpaca_outputs,
    read_arena_answers,
    read_arena_judgements,
    read_turns,
)
from mixdpo_ray.benchmarks.own import Own
from mixdpo_ray.evaluation.judged import JudgedAnswers, judge_answers
from mixdpo_ray.evaluation.output import file_name, write_interchange
from mixdpo_ray.evaluation.results import EvaluatedBenchmark, EvaluationResults, smallest_shown
from mixdpo_ray.evaluation.scored import ArmAnswers, ComparedWith, score_arms
from mixdpo_ray.evaluation.table import results_text
from mixdpo_ray.judges.truth import TruthJudge
from mixdpo_ray.judging.reply import ChatReply
from mixdpo_ray.playground.prompts import draw_prompts, noisy_demonstration, quality
from mixdpo_ray.recipe.judge import PriceSettings
from tests.benchmarks import test_alpaca_eval_2, test_arena_hard, test_mt_bench
from tests.evaluation.small_evaluation import RuleJudge

DRAW = random.Random(0)
TASKS = draw_prompts(DRAW, 60, set())
PROMPTS = [BenchmarkPrompt(task.text, (task.text,), "", (noisy_demonstration(DRAW, task),)) for task in TASKS]
ANSWERS = {name: {task.text: (noisy_demonstration(DRAW, task),) for task in TASKS} for name in ("one", "other")}


def told(judged: JudgedAnswers, against: str = "one", benchmark: Own | None = None) -> EvaluatedBenchmark:
    answers = {name: ArmAnswers(name, arm.answers) for name, arm in judged.arms.items()}
    compared = ComparedWith("its file", against)
    return score_arms("own", benchmark or Own(), judged, answers, compared, PriceSettings(), resamples=200)


def test_the_win_rate_by_the_playgrounds_judge_is_the_comparison_of_true_qualities_exactly() -> None:
    found = told(judge_answers(Own(), PROMPTS, ANSWERS, TruthJudge()))
    for arm in found.arms:
        true = 0.0
        for task, prompt in zip(TASKS, PROMPTS, strict=True):
            mine, theirs = (quality(task, text) for text in (ANSWERS[arm.name][task.text][0], prompt.reference[0]))
            true += 1.0 if mine > theirs else 0.5 if mine == theirs else 0.0
        assert arm.scores["win_rate"].value == pytest.approx(100 * true / len(TASKS), abs=1e-12)
        assert (arm.scores["flip_rate"].value, arm.scores["first_shown_share"].value) == (0, 50)
        assert (arm.missing, arm.failures, arm.no_score) == ({}, {}, "")
    one, other = (arm.scores["win_rate"].value for arm in found.arms)
    (difference,) = found.differences
    assert (difference.arm, difference.against, difference.score) == ("other", "one", "win_rate")
    assert difference.apart.value == pytest.approx(other - one)
    assert smallest_shown(difference.apart) == pytest.approx(2.8 * difference.apart.error)


def test_equal_questions_of_several_arms_are_asked_once() -> None:
    judge = RuleJudge(lambda text: ChatReply("no mark"))
    judged = judge_answers(Own(), PROMPTS, {"one": ANSWERS["one"], "same": ANSWERS["one"]}, judge)
    open_games = sum(ANSWERS["one"][prompt.item] != prompt.reference for prompt in PROMPTS)
    assert len(judge.asked) == len(set(judge.asked)) == 2 * open_games
    assert judged.cost(PriceSettings()).calls == 2 * open_games


def test_an_arm_with_too_many_missing_verdicts_has_no_score_and_the_other_one_keeps_its_own() -> None:
    few = {item: ANSWERS["other"][item] for item in list(ANSWERS["other"])[:50]}
    found = told(judge_answers(Own(), PROMPTS, {"one": ANSWERS["one"], "other": few}, TruthJudge()))
    one, other = found.arms
    assert one.scores["win_rate"].prompts == 60
    assert (other.scores, other.missing, found.differences) == ({}, {"no_answer": 20}, ())
    assert other.no_score.startswith("20 of 120 verdicts are missing, more than max_missing allows (0.02)")
    kept = told(judge_answers(Own(), PROMPTS, {"other": few}, TruthJudge()), "", Own(max_missing=0.2))
    assert kept.arms[0].scores["win_rate"].prompts == 50


def test_failed_calls_are_counted_by_reason_and_are_no_verdicts() -> None:
    refused = PROMPTS[0].turns[0]
    judge = RuleJudge(lambda text: ChatReply.failed("HTTP 400") if refused in text else ChatReply(text="[[tie]]"))
    judged = judge_answers(Own(max_missing=0.9), PROMPTS[:3], ANSWERS, judge)
    assert judged.failures("one") == {"HTTP 400": 2}
    assert {judged.arms["one"].verdict(PROMPTS[0].item, "model_first").reason} == {"no_reply"}
    assert {judged.arms["one"].verdict(PROMPTS[1].item, "model_first").reason} == {"no_mark"}


def test_results_come_back_from_their_file_and_are_told_in_a_table() -> None:
    judged = judge_answers(Own(), PROMPTS, ANSWERS, TruthJudge())
    results = EvaluationResults("tried", "the truth", (told(judged),))
    assert EvaluationResults.from_json(results.to_json()) == results
    text = results_text(results)
    assert "own: 60 prompts, compared with the answers of its file" in text
    assert "| arm   | win rate" in text
    assert "against one" in text
    assert "0 of 120" in text
    assert len(results.benchmarks[0].examples) == 20


def test_a_reply_without_a_mark_is_asked_once_more_and_all_that_was_said_is_read(tmp_path: Path) -> None:
    benchmark = test_arena_hard.made(tmp_path, ArenaHardV01)
    prompts = benchmark.read_prompts()
    judge = RuleJudge(lambda text: ChatReply("[[A>B]]" if "Now the verdict." in text else "hm"))
    judged = judge_answers(benchmark, prompts, {"mine": test_arena_hard.ANSWERS}, judge)
    assert len(judge.asked) == 4 * len(prompts)
    assert {verdict.value for verdict in judged.arms["mine"].verdicts.values()} == {1.0}
    assert judged.cost(PriceSettings()).calls == len(judge.asked)


@pytest.mark.parametrize("name", ["mine", "a run, seed 1"])
def test_every_interchange_file_is_read_back(tmp_path: Path, name: str) -> None:
    alpaca, mt_bench = test_alpaca_eval_2.made(tmp_path), test_mt_bench.made(tmp_path)
    prompts = alpaca.read_prompts()
    texts = {prompt.item: (f"model {prompt.item}",) for prompt in prompts}
    judge = RuleJudge(lambda text: ChatReply("m", tokens=(("m", {"m": -0.1, "M": -2.0}),)))
    judged = judge_answers(alpaca, prompts, {name: texts}, judge)
    write_interchange(str(tmp_path), "alpaca", alpaca, judged, {name: ArmAnswers("m", texts)}, "judge")
    assert read_alpaca_outputs(f"{tmp_path}/alpaca/{file_name(name)}/outputs.json", prompts) == texts

    judged = judge_answers(
        mt_bench, mt_bench.read_prompts(), {name: test_mt_bench.ANSWERS}, RuleJudge(lambda _: ChatReply("[[7]]"))
    )
    arms = {name: ArmAnswers("m", test_mt_bench.ANSWERS)}
    write_interchange(str(tmp_path), "mt", mt_bench, judged, arms, "judge")
    assert read_turns(f"{tmp_path}/mt/model_answer/{file_name(name)}.jsonl") == test_mt_bench.ANSWERS

    arena = test_arena_hard.made(tmp_path, ArenaHardV01)
    marks = RuleJudge(lambda text: ChatReply("[[A>>B]]" if "A model" in text else "[[A=B]] [[B>A]]"))
    judged = judge_answers(arena, arena.read_prompts(), {name: test_arena_hard.ANSWERS}, marks)
    arms = {name: ArmAnswers("m", test_arena_hard.ANSWERS)}
    write_interchange(str(tmp_path), "arena", arena, judged, arms, "gpt-4/turbo")
    answers = read_arena_answers(f"{tmp_path}/arena/model_answer/{file_name(name)}.jsonl")
    assert answers == {name: {item: turns[0] for item, turns in test_arena_hard.ANSWERS.items()}}
    (judgements,) = tmp_path.glob("arena/model_judgment/*/*.jsonl")
    assert set(read_arena_judgements(str(judgements))[name].values()) == {(None, "A>>B")}
