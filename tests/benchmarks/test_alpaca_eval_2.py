"""AlpacaEval 2 on made-up prompts: what is asked in which order, what is settled without a call, and what comes out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from mixdpo_ray.benchmarks.alpaca_eval_2 import AlpacaEval2, official_game, read_calibration
from mixdpo_ray.benchmarks.benchmark import JudgeQuestion
from mixdpo_ray.benchmarks.verdict import JudgeReply
from mixdpo_ray.errors import EvaluationError
from tests.benchmarks.made_benchmarks import CHATML, judged, write_json

PROMPTS = 40


def made(folder: Path, **settings: object) -> AlpacaEval2:
    outputs = [{"dataset": "d", "instruction": f"Task {n}", "output": f"baseline {n}"} for n in range(PROMPTS)]
    (folder / "judge.txt").write_text(CHATML)
    files = {"prompts": write_json(folder / "baseline.json", outputs), "template": str(folder / "judge.txt")}
    return AlpacaEval2.model_validate({**files, **settings})


def leaning_judge(quality: float, bias: float) -> Callable[[JudgeQuestion], JudgeReply]:
    """Prefers the model by `quality` and the second answer by `bias`, both in log-odds."""

    def judge(question: JudgeQuestion) -> JudgeReply:
        model_second = "M: model" in question.messages[1]["content"]
        second = bias + (quality if model_second else -quality)
        return JudgeReply("M", {"m": -math.log1p(math.exp(second)), "M": -math.log1p(math.exp(-second))})

    return judge


def test_the_official_order_is_drawn_from_the_instruction_alone() -> None:
    """What random.Random of the text says on every platform; half of all prompts are switched."""
    games = [official_game(f"Task {n}") for n in range(1000)]
    assert [game == "model_first" for game in games[:8]] == [True, False, False, False, False, True, False, True]
    assert 450 < games.count("model_first") < 550


def test_both_orders_are_asked_and_the_answers_stand_where_they_are_said_to(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    prompt = benchmark.read_prompts()[3]
    first, second = benchmark.questions(prompt, ("model {output_1} <|im_end|>",), benchmark.read_template())
    assert (first.game, second.game) == ("baseline_first", "model_first")
    assert first.messages[0] == {"role": "system", "content": "Be fair."}
    assert first.messages[1]["content"] == "Task 3\nm: baseline 3\nM: model {output_1} <|im_end|>"
    assert second.messages[1]["content"] == "Task 3\nm: model {output_1} <|im_end|>\nM: baseline 3"
    official = made(tmp_path, order="official")
    assert [one.game for one in official.questions(prompt, ("x",), official.read_template())] == [
        official_game("Task 3")
    ]


def test_a_template_that_hides_an_answer_is_refused(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    (tmp_path / "judge.txt").write_text(CHATML.replace("{output_2}", "{output_1}"))
    with pytest.raises(EvaluationError, match=r"judge\.txt: the template lacks \{output_2\}; add it"):
        benchmark.read_template()


def test_equal_texts_are_a_draw_without_a_call(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    prompt = benchmark.read_prompts()[0]
    questions = benchmark.questions(prompt, ("baseline 0",), benchmark.read_template())
    assert [question.settled and question.settled.value for question in questions] == [0.5, 0.5]
    assert all(one.settled is None for one in benchmark.questions(prompt, ("baseline 0 ",), benchmark.read_template()))


def test_a_position_bias_moves_the_official_order_and_not_the_average_of_both(tmp_path: Path) -> None:
    """A judge without an opinion and a bias of 1 in log-odds: the second wins 73.1 %, and both orders give 50."""
    benchmark = made(tmp_path)
    prompts = benchmark.read_prompts()
    answers = {prompt.item: (f"model {n}",) for n, prompt in enumerate(prompts)}
    arm = judged(benchmark, prompts, answers, leaning_judge(0.0, 1.0))
    scores = benchmark.scores({"arm": arm})["arm"].scores
    assert scores["win_rate"].value == pytest.approx(50)
    assert scores["first_shown_share"].value == pytest.approx(100 / (1 + math.e))
    assert scores["flip_rate"].value == 100
    assert scores["average_length"].value < scores["baseline_length"].value
    official = made(tmp_path, order="official")
    once = official.scores({"arm": judged(official, prompts, answers, leaning_judge(0.0, 1.0))})["arm"].scores
    second = sum(official_game(prompt.turns[0]) == "baseline_first" for prompt in prompts)
    share = 1 / (1 + math.exp(-1))
    assert once["win_rate"].value == pytest.approx(100 * (second * share + (PROMPTS - second) * (1 - share)) / PROMPTS)
    assert "flip_rate" not in once


def test_a_judge_that_always_prefers_the_model_never_flips(tmp_path: Path) -> None:
    benchmark = made(tmp_path)
    prompts = benchmark.read_prompts()
    answers = {prompt.item: (f"model {n}",) for n, prompt in enumerate(prompts)}
    scored = benchmark.scores({"arm": judged(benchmark, prompts, answers, leaning_judge(3.0, 0.5))})["arm"]
    assert scored.scores["flip_rate"].value == 0
    assert scored.scores["discrete_win_rate"].value == 100
    assert scored.scores["discrete_win_rate"].low < 95  # forty wins are not certain
    assert scored.missing == {}
    assert any("not the leaderboard's figure" in note for note in scored.notes)
    assert list(benchmark.headline(scored.scores)) == ["length_controlled_win_rate"]


def test_difficulty_and_calibration_are_joined_by_item(tmp_path: Path) -> None:
    (tmp_path / "difficulty.csv").write_text(
        "index,instruction_difficulty\n" + "".join(f"{n},{n / 20 - 1}\n" for n in reversed(range(PROMPTS)))
    )
    rows = "".join(f"m,{n},{n % 7 - 3},{n / 20 - 1},{0.1 + n % 9 / 10},False\n" for n in range(PROMPTS))
    (tmp_path / "gamed.csv").write_text(
        "model,index,std_delta_len,instruction_difficulty,preference,not_gamed_baseline\n" + rows
    )
    files = {"difficulty": str(tmp_path / "difficulty.csv"), "calibration": str(tmp_path / "gamed.csv"), "c": 2.0}
    benchmark = made(tmp_path, **files)
    prompts = benchmark.read_prompts()
    answers = {prompt.item: ("model" + "!" * (n % 5),) for n, prompt in enumerate(prompts)}
    scored = benchmark.scores({"arm": judged(benchmark, prompts, answers, leaning_judge(1.0, 0.0))}, resamples=50)[
        "arm"
    ]
    assert scored.scores["length_controlled_win_rate"].value == pytest.approx(73.1, abs=3)
    assert "the length-controlled win rate was fitted with C = 2" in scored.notes
    few = write_json(tmp_path / "few.json", [{"instruction": "Task 0", "output": "x"}])
    with pytest.raises(EvaluationError, match="40 difficulties of 1 prompts"):
        made(tmp_path, **files, prompts=few).statistics({})
    with pytest.raises(ValueError, match="go together"):
        made(tmp_path, difficulty="d.csv")


HEADS = "index,instruction_difficulty\n", "index,std_delta_len,instruction_difficulty,preference\n"


@pytest.mark.parametrize(
    ("difficulty", "calibration", "reason"),
    [
        ("", "0,1,1,0.5\n", "not enough values"),
        (f"{HEADS[0]}0,1\n1", "0,1,1,0.5\n", "not enough values"),
        (f"{HEADS[0]}0,high\n", "0,1,1,0.5\n", "could not convert string to float: 'high'"),
        (f"{HEADS[0]}0,1\n", "0,1,1\n", "not 'NoneType'"),
        (f"{HEADS[0]}0,1\n", "", "no rows; give the published file"),
    ],
)
def test_a_table_that_was_cut_short_is_named_in_one_line(
    tmp_path: Path, difficulty: str, calibration: str, reason: str
) -> None:
    (tmp_path / "d").write_text(difficulty)
    (tmp_path / "c").write_text(HEADS[1] + calibration)
    with pytest.raises(EvaluationError, match=reason) as refused:
        read_calibration(f"{tmp_path}/d", f"{tmp_path}/c")
    assert "\n" not in str(refused.value)


def test_an_empty_line_of_a_table_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "d").write_text(f"{HEADS[0]}0,1.5\n\n")
    (tmp_path / "c").write_text(f"{HEADS[1]}0,1,1,0.5\n\n")
    found = read_calibration(f"{tmp_path}/d", f"{tmp_path}/c")
    assert (dict(found.difficulty), found.outcome.tolist()) == ({"0": 1.5}, [0.5])


def test_missing_answers_and_verdicts_are_counted_and_too_many_refused(tmp_path: Path) -> None:
    benchmark = made(tmp_path, max_missing=0.05)
    prompts = benchmark.read_prompts()
    answers = {prompt.item: ("model",) for prompt in prompts[:-1]}
    judge = leaning_judge(1.0, 0.0)
    arm = judged(benchmark, prompts, answers, judge)
    scored = benchmark.scores({"arm": arm}, resamples=50)["arm"]
    assert scored.missing == {"no_answer": 2}
    assert scored.scores["win_rate"].prompts == PROMPTS - 1

    def silent(question: JudgeQuestion) -> JudgeReply:
        return judge(question) if question.item != "5" else JudgeReply("The", {"The": -0.1})

    arm = judged(benchmark, prompts, answers, silent)
    assert benchmark.scores({"arm": arm}, resamples=50)["arm"].missing["no_identifier"] == 2
    with pytest.raises(EvaluationError, match="4 of 80 verdicts are missing"):
        made(tmp_path, max_missing=0.04).scores({"arm": arm})
