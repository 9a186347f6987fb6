"""Rounds of a tiny model in the playground: killed and interrupted they end as those that nobody disturbs."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.iteration.iterate import iterate
from mixdpo_ray.iteration.output import IterateOutput
from mixdpo_ray.playground.base_model import make_tokenizer, save, train_base_model
from mixdpo_ray.playground.prompts import draw_prompts
from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from tests.search.studies import Ended, StudyJob

pytestmark = pytest.mark.cluster
RECIPE = """
model: {path: model, dtype: float32}
data:
  source: {path: rated.jsonl, format: rated_answers}
  heldout: {fraction: 0.1}
  max_prompt_length: 16
  max_length: 64
answers:
  sample:
    prompts: {source: {path: prompts.jsonl}}
    answers_each: 4
    batch_size: 64
    decoding: {max_new_tokens: 8}
  rate: {raters: {truth: {kind: playground}}}
  judge: {engine: playground}
  iterate: {rounds: 1, prompts_each: 300, judged: 150}
curriculum: {mode: sorted_dpo, order: shuffled}
train:
  global_batch_size: 16
  per_device_train_batch_size: 16
  num_train_epochs: 3
  optimizer: {learning_rate: 5e-4}
  checkpoints: {every_steps: 5}
deepspeed: {zero_stage: 0}
cluster: {num_workers: 1, use_gpu: false}
output: {storage_path: out}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iteration")
    tokenizer = make_tokenizer()
    model = train_base_model(PlaygroundSettings(base_steps=150, base_batch=16), tokenizer, lambda loss: None)
    save(model, tokenizer, folder / "model")
    prompts = draw_prompts(random.Random(0), 1050)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": one.text}) + "\n" for one in prompts))
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def recipe(folder: Path, name: str, *overrides: str) -> Recipe:
    paths = {"model.path": "model", "answers.sample.prompts.source.path": "prompts.jsonl", "output.storage_path": "out"}
    own = [f"{key}={folder / value}" for key, value in paths.items()]
    return load_recipe(str(folder / "recipe.yaml"), [*own, f"output.name={name}", *overrides])


@pytest.fixture(scope="module")
def calm(folder: Path, local_ray: None) -> IterateOutput:
    return iterate(recipe(folder, "calm"))


@dataclass(frozen=True)
class Life:
    """Two rounds by a command that was killed in the first one and interrupted in the second."""

    folder: Path
    round_written: int  # when the first one's round.json was
    interrupted: Ended
    at_the_end: Ended

    @property
    def rounds(self) -> list[dict[str, Any]]:
        rounds: list[dict[str, Any]] = json.loads((self.folder / "rounds.json").read_text())["rounds"]
        return rounds


@pytest.fixture(scope="module")
def life(folder: Path, calm: IterateOutput) -> Life:
    job, cut = StudyJob(folder, "cut"), folder / "out/iterations/cut"
    command = ("recipe.yaml", "output.name=cut", "answers.iterate.rounds=2")
    job.start_job("iterate", *command)
    job.wait_until(lambda: lines_of(cut / "round-1/runs/cut/metrics.jsonl") > 3, "step")
    job.kill_driver()
    assert not (cut / "round-1/round.json").exists()
    job.start_job("iterate", *command)
    job.wait_until(lambda: list(cut.glob("round-2/samples/*/part-*")), "answer of round 2")
    written = (cut / "round-1/round.json").stat().st_mtime_ns
    interrupted = job.interrupt()
    return Life(cut, written, interrupted, job.run_job_here("iterate", *command))


def lines_of(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def model_of(folder: Path, number: int) -> bytes:
    (model,) = folder.glob(f"round-{number}/runs/*/model/model.safetensors")
    return model.read_bytes()


def test_a_round_draws_rates_trains_and_is_judged(calm: IterateOutput, folder: Path) -> None:
    (one,) = calm.rounds
    assert one.over_last == one.over_first
    assert one.over_last.prompts == 150
    assert one.gains, calm.describe()
    assert (one.pairs.prompts, one.pairs.answers) == (300, 1200)
    assert one.pairs.trained + one.pairs.held_out + sum(one.pairs.quarantined.values()) == 300
    assert 1 < one.pairs.ratings["truth"] < 10
    assert AutoModelForCausalLM.from_pretrained(one.model).num_parameters() > 140_000
    assert not (folder / "out/iterations/calm/round-1/runs/calm/checkpoints").exists()
    assert {file.name for file in (folder / "out/iterations/calm").iterdir() if file.suffix} == {
        "rounds.json", "table.md", "rounds.png", "report.html", "recipe.json", "prompts.jsonl", "judged.jsonl",
    }  # fmt: skip


def test_a_killed_round_ends_as_one_that_nobody_disturbed(life: Life, calm: IterateOutput) -> None:
    assert model_of(life.folder, 1) == model_of(Path(calm.folder), 1)
    for name in ("over_last", "length", "pairs"):
        assert life.rounds[0][name] == json.loads(calm.rounds[0].to_json())[name]


def test_an_interrupted_round_goes_on_by_the_same_command_and_earlier_ones_stay(life: Life) -> None:
    assert life.interrupted.status == 130
    assert "interrupted; the same command continues" in life.interrupted.lines
    assert "Traceback" not in life.interrupted.err
    assert "iterate: loading libraries and starting Ray" in life.interrupted.err
    assert "sample: loading libraries" not in life.interrupted.err  # Ray is there for every step of a round
    assert life.at_the_end.status == 0, life.at_the_end.err
    assert "answers are there already" in life.at_the_end.err
    assert "round 1 of" not in life.at_the_end.err
    assert (life.folder / "round-1/round.json").stat().st_mtime_ns == life.round_written


def test_the_second_round_begins_where_the_first_one_ended(life: Life, folder: Path) -> None:
    model = json.loads((life.folder / "round-2/runs/cut/recipe.json").read_text())["recipe"]["model"]
    assert (folder / model["path"]).samefile(life.folder / "round-1/runs/cut/model")
    assert (folder / model["reference"]).samefile(folder / "model")
    first, second = life.rounds
    assert first["begins_with"] != second["begins_with"]
    prompts = [answered_prompts(life.folder / f"round-{number}") for number in (1, 2)]
    assert [len(some) for some in prompts] == [300, 300]
    assert not prompts[0] & prompts[1]


def answered_prompts(folder: Path) -> set[str]:
    return {json.loads(line)["prompt_id"] for line in (folder / "samples/cut.jsonl").read_text().splitlines()}


def test_what_is_done_is_not_done_again_and_other_settings_are_refused(calm: IterateOutput, folder: Path) -> None:
    before = (folder / "out/iterations/calm/round-1/round.json").stat().st_mtime_ns
    assert iterate(recipe(folder, "calm")).describe() == calm.describe()
    assert (folder / "out/iterations/calm/round-1/round.json").stat().st_mtime_ns == before
    with pytest.raises(RunConflictError, match=r"another iteration \(train.optimizer.learning_rate was .*fresh=true"):
        iterate(recipe(folder, "calm", "train.optimizer.learning_rate=1e-4"))


def test_a_first_model_that_has_become_another_one_is_told(calm: IterateOutput, folder: Path) -> None:
    weights = folder / "model" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-4] + b"\0\0\0\1")
    with pytest.raises(RunConflictError, match="is not the model any more that round 1 began with"):
        iterate(recipe(folder, "calm"))
    weights.write_bytes(before)


@pytest.mark.chaos
@pytest.mark.parametrize("number", range(6))
def test_deaths_at_random_moments_change_nothing(number: int, folder: Path, life: Life) -> None:
    draw, name = random.Random(), f"chaos-{number}"
    job, command = StudyJob(folder, name), ("recipe.yaml", f"output.name={name}", "answers.iterate.rounds=2")
    for _ in range(3):
        job.start_job("iterate", *command)
        ends = time.monotonic() + draw.uniform(5, 25)
        while time.monotonic() < ends and job.process is not None and job.process.poll() is None:
            time.sleep(0.05)
        job.kill_driver() if draw.random() < 0.5 else job.interrupt()
    ended = job.run_job_here("iterate", *command)
    assert ended.status == 0, ended.err
    for which in range(1, len(life.rounds) + 1):
        assert model_of(folder / "out/iterations" / name, which) == model_of(life.folder, which)
