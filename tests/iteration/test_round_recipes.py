"""What each step of a round is asked for, and what is refused before Ray starts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mixdpo_ray.errors import DataError
from mixdpo_ray.iteration.round_judge import read_answers
from mixdpo_ray.iteration.round_prompts import take_prompts
from mixdpo_ray.iteration.round_recipes import check_iteration, judged_recipe, sampling_recipe, training_recipe
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from tests.recipe.complaints import complaint

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "jobs" / "recipes"
LLAMA, SPA = str(RECIPES / "llama3-8b-iterate.yaml"), str(RECIPES / "llama3-8b-spa.yaml")
PLAYGROUND = str(RECIPES / "playground-iterate.yaml")
SMALL = """
model: {path: MODEL}
data: {source: {path: rated.jsonl}}
answers:
  sample: {prompts: {source: {path: PROMPTS}}}
  rate: {raters: {truth: {kind: playground}}}
  judge: {engine: playground}
  iterate: {rounds: 2, prompts_each: 3, judged: 2}
"""


def small(folder: Path, prompts: int = 9) -> Path:
    (folder / "model").mkdir()
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"sort {'abcdefghij'[n]} a"}) + "\n" for n in range(prompts)))
    recipe = folder / "small.yaml"
    recipe.write_text(SMALL.replace("MODEL", str(folder / "model")).replace("PROMPTS", str(file)))
    return recipe


def test_each_round_answers_others_of_the_prompts_with_the_model_of_the_last() -> None:
    recipe = load_recipe(PLAYGROUND, ["output.storage_path=out", "output.name=own"])
    first, second = (sampling_recipe(recipe, number) for number in (1, 2))
    assert (first.answers.sample.model, second.answers.sample.model) == (None, "out/iterations/own/round-1/runs/own")
    asked = [one.answers.sample.prompts for one in (first, second)]
    assert [(one.skip, one.most) for one in asked] == [(0, 1000), (1000, 1000)]
    assert [one.answers.sample.decoding.seed for one in (first, second)] == [0, 1]
    judged = [judged_recipe(recipe, number) for number in (0, 2)]
    assert [one.answers.sample.model for one in judged] == [None, "out/iterations/own/round-2/runs/own"]
    assert {one.answers.sample.decoding.seed for one in judged} == {0}


def test_checkpoints_of_a_round_are_judged_by_prompts_that_no_round_trains_on() -> None:
    recipe = load_recipe(PLAYGROUND, ["output.storage_path=out", "output.name=own"])
    for prompts in (
        judged_recipe(recipe, 1).answers.sample.prompts,
        training_recipe(recipe, 1, "r").answers.sample.prompts,
    ):
        assert prompts.source is not None
        assert (prompts.source.path, prompts.skip, prompts.most) == ("out/iterations/own/judged.jsonl", 0, None)


@pytest.mark.parametrize(
    ("overrides", "references"),
    [
        ([], [None, "princeton-nlp/Llama-3-Base-8B-SFT"]),
        (["answers.iterate.reference=last"], [None, None]),
        (["model.reference=my/other"], ["my/other", "my/other"]),
        (["objective={name: simpo}"], [None, None]),
    ],
)
def test_training_goes_on_from_the_last_round_and_is_held_close_to_what_is_asked_for(
    overrides: list[str], references: list[str | None]
) -> None:
    recipe = load_recipe(LLAMA, ["output.storage_path=out", "output.name=own", *overrides])
    rounds = [training_recipe(recipe, number, f"rated-{number}.jsonl") for number in (1, 2)]
    assert [one.model.reference for one in rounds] == references
    assert [one.model.path for one in rounds] == [recipe.model.path, "out/iterations/own/round-1/runs/own/model"]
    assert [(one.data.source.path, one.data.source.format) for one in rounds] == [
        ("rated-1.jsonl", "rated_answers"),
        ("rated-2.jsonl", "rated_answers"),
    ]


def test_a_model_that_rates_itself_is_in_each_round_the_one_that_the_round_begins_with() -> None:
    recipe = load_recipe(SPA, ["output.storage_path=out", "output.name=own"])
    raters = [sampling_recipe(recipe, number).to_dict()["answers"]["rate"]["raters"]["own"] for number in (1, 2)]
    assert [one["model"] for one in raters] == [recipe.model.path, "out/iterations/own/round-1/runs/own/model"]
    assert {one["against"] for one in raters} == {"princeton-nlp/Llama-3-Base-8B-SFT"}
    fixed = load_recipe(LLAMA)
    assert sampling_recipe(fixed, 2).answers.rate == fixed.answers.rate


def ways() -> list[list[str]]:
    chapter = (ROOT / "jobs" / "answers.md").read_text().split("\n## Iterate\n")[1].split("\n## ")[0]
    rows = [line for line in chapter.splitlines() if re.match(r"\| .*`[a-z.]+=", line)]
    return [re.findall(r"`([^`]+)`", row) for row in rows]


@pytest.mark.parametrize("overrides", [[], *ways()], ids=str)
def test_every_way_of_the_guide_is_an_iteration(overrides: list[str]) -> None:
    assert len(ways()) == 3
    recipe = load_recipe(LLAMA, overrides)
    check_iteration(recipe)
    assert isinstance(training_recipe(recipe, 2, "rated.jsonl"), Recipe)


def test_spa_begins_with_a_seed_that_its_recipe_tells_how_to_train() -> None:
    check_iteration(load_recipe(SPA))
    command = re.sub(r"\\\n#\s*", "", Path(SPA).read_text())
    line = next(line for line in command.splitlines() if "jobs/train.py jobs/recipes" in line)
    words = re.findall(r'"([^"]+)"|(\S+)', line.lstrip("# "))
    _, recipe, *overrides = [quoted or plain for quoted, plain in words]
    assert load_recipe(str(ROOT / recipe), overrides).output.name == "spa-seed"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("answers.sample.prompts.source=null", "answers.sample.prompts.source is missing: name the prompts"),
        ("answers.sample.model=other", "answers.sample.model 'other': the first round is answered by model.path"),
        ("answers.sample.engine=http", "answers.sample.engine http: a server does not learn"),
        ("answers.rate.pairs=true", "answers.rate.pairs: rounds rate their own answers; leave it out"),
        ("answers.rate.source={path: x}", "answers.rate.source: rounds rate their own answers; leave it out"),
        ("answers.rate.raters={}", "answers.rate.raters names none: say who rates the answers"),
        ("answers.judge=null", "answers.judge is missing: it says whether a round was any good"),
        ("data.source.format=plain", "data.source.format 'plain': rounds rate their own answers"),
        ("train.max_steps=3", "train.max_steps would cut the curriculum of every round"),
        ("output.storage_path=s3://bucket/out", "output.storage_path 's3://bucket/out': a round trains the model"),
        ("model.lora={rank: 4}", "answers.iterate.reference first: adapters are held close"),
    ],
)
def test_what_cannot_be_iterated_is_one_line(tmp_path: Path, override: str, said: str) -> None:
    found = complaint(small(tmp_path), override, check=check_iteration)
    assert found.startswith(said), found
    assert "\n" not in found


def test_judged_prompts_are_set_aside_and_rounds_get_the_next_ones(tmp_path: Path) -> None:
    recipe = load_recipe(str(small(tmp_path)), [f"output.storage_path={tmp_path / 'out'}"])
    taken = take_prompts(recipe)
    texts = [[one.messages[0]["content"][5] for one in some] for some in (taken.judged, taken.rounds)]
    assert texts == [["a", "b"], ["c", "d", "e", "f", "g", "h"]]


def test_answers_are_read_whatever_line_separators_they_hold(tmp_path: Path) -> None:
    """Only line feeds end a row; JSON leaves those of Unicode as they are."""
    file = tmp_path / "answers.jsonl"
    rows = [{"prompt_id": "one", "answer": "first\u2028second\x85third"}, {"prompt_id": "two", "answer": "a\nb"}]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert read_answers(str(file)) == {row["prompt_id"]: row["answer"] for row in rows}


def test_prompts_that_are_judged_by_are_answered_in_no_round(tmp_path: Path) -> None:
    path = small(tmp_path)
    (tmp_path / "judged.jsonl").write_text(json.dumps({"prompt": "sort c a"}) + "\n" + json.dumps({"prompt": "x"}))
    out = f"output.storage_path={tmp_path / 'out'}"
    recipe = load_recipe(str(path), [f"answers.iterate.judged_source.path={tmp_path / 'judged.jsonl'}", out])
    taken = take_prompts(recipe)
    assert [one.messages[0]["content"] for one in taken.judged] == ["sort c a", "x"]
    assert "c" not in [one.messages[0]["content"][5] for one in taken.rounds]


def test_too_few_prompts_are_told_before_the_first_round(tmp_path: Path) -> None:
    recipe = load_recipe(str(small(tmp_path, prompts=7)), [f"output.storage_path={tmp_path / 'out'}"])
    with pytest.raises(DataError, match=r"has 7 prompts, 2 of them to judge by, and 2 rounds of 3 need 6: lower"):
        take_prompts(recipe)
