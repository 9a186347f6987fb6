"""Answers of a tiny model, drawn by actors: the same whatever happened on the way, and drawn once."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray

from mixdpo_ray.errors import EndpointError, MixDPOError, ModelError, QuarantineError
from mixdpo_ray.judging.question import request_body
from mixdpo_ray.pairs.pair import Message
from mixdpo_ray.pairs.quarantine import Quarantine
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from mixdpo_ray.playground.sample import write_tiny_model
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.engine import AskedAnswer
from mixdpo_ray.sampling.http import HttpEngine, question_of
from mixdpo_ray.sampling.prompts import AskedPrompt
from mixdpo_ray.sampling.sample import SampleReport, sample
from mixdpo_ray.tables.answer_table import AnswerTable
from mixdpo_ray.training.keyed_sampling import key_seed
from tests.judging.questions import truth
from tests.recipe.small_recipe import write_answers_recipe

PROMPTS = ["sort d a c", "reverse a b c d e f", "double a b c", "swap p o n m", "sort a b", "double c d e f g h"]
KEY = "sk-planted-9876543210"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, pairs, prompts, and a run whose model is another one."""
    folder = tmp_path_factory.mktemp("sampling")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    prompts = {"source": {"path": f"{folder}/prompts.jsonl"}}
    sample = {"prompts": prompts, "answers_each": 3, "decoding": {"max_new_tokens": 12}}
    write_answers_recipe(folder, 40, 0.2, {"sample": sample})
    return folder


def recipe(folder: Path, *overrides: str, out: str = "out") -> Recipe:
    return load_recipe(str(folder / "recipe.yaml"), [f"output.storage_path={folder / out}", *overrides])


def parts(report: SampleReport) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(report.table).glob("part-*")}


def lines(report: SampleReport) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(report.file).read_text().splitlines()]


def keep_only(report: SampleReport, out: Path, rows: Sequence[int]) -> None:
    """A table as a killed job leaves it, with some of the answers in parts of one row."""
    whole = AnswerTable.open(report.table)
    (answers,) = whole.rows(sorted(whole.keys))
    cut = AnswerTable.create(
        str(out / "samples" / Path(report.table).name), whole.manifest.fingerprint, whole.manifest.facts
    )
    for row in rows:
        cut.append(answers.slice(row, 1))


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_workers_batches_and_a_kill_change_no_byte_of_the_answers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    once = sample(recipe(folder, "answers.sample.batch_size=16"))
    assert (once.prompts, once.answers, once.drawn) == (6, 18, 18)
    assert [line["prompt"][0]["content"] for line in lines(once)] == [prompt for prompt in PROMPTS for _ in range(3)]
    assert [line["draw"] for line in lines(once)] == [0, 1, 2] * 6
    assert len({line["answer"] for line in lines(once)}) > 12
    assert {line["finish"] for line in lines(once)} == {"stop", "length"}

    keep_only(once, folder / "killed", [0, 5, 6, 11])
    again = sample(recipe(folder, "answers.sample.batch_size=1", "answers.sample.workers=2", out="killed"))
    assert (again.answers, again.drawn) == (18, 14)
    assert "sample: 4 of 18 answers are there already" in capsys.readouterr().err
    assert parts(again) == parts(once)
    assert lines(again) == lines(once)


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_the_prompts_of_a_recipes_own_pairs_are_those_of_the_split(folder: Path) -> None:
    """Answered by the model of a run, of which the recipe knows the folder alone."""
    run = folder / "runs" / "tried"
    write_tiny_model(run / "model", seed=1)
    own = recipe(
        folder,
        "answers.sample.prompts={split: heldout}",
        f"answers.sample.model={run}",
        "answers.sample.answers_each=1",
    )
    (run / "recipe.json").write_text(json.dumps({"recipe": own.to_dict(), "identity": {}}))
    report = sample(own)
    table = prepared_table(own)
    assert 0 < report.prompts <= table.rows("eval")
    assert report.model == str(run / "model")
    texts = {json.loads(line)["prompt"] for line in (folder / "pairs.jsonl").read_text().splitlines()}
    assert {line["prompt"][0]["content"] for line in lines(report)} < texts


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_model_without_weights_is_one_line(folder: Path) -> None:
    write_tiny_model(folder / "empty")
    (folder / "empty" / "model.safetensors").unlink()
    with pytest.raises(ModelError) as error:
        sample(recipe(folder, f"answers.sample.model={folder / 'empty'}"))
    assert str(error.value).startswith(f"answers.sample.model '{folder / 'empty'}' cannot be loaded: ")
    assert "\n" not in str(error.value)


class AnswerServer(JudgeServer):
    """Writes the last turn in capitals."""

    def content(self, body: Mapping[str, Any], question: str, said: str = "") -> dict[str, Any]:
        message = {"role": "assistant", "content": body["messages"][-1]["content"].upper() + f" {body['seed']}"}
        choice = {"message": message, "finish_reason": "stop"}
        return {"choices": [choice], "usage": {"completion_tokens": 3}}


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_server_is_asked_once_for_each_answer_and_its_key_is_found_nowhere(folder: Path) -> None:
    (folder / "key").write_text(KEY)
    server = AnswerServer(truth, Faults(refused="swap", quoted_key=True))
    settings = [
        "answers.sample.engine=http",
        f"answers.sample.http.key_file={folder / 'key'}",
        "answers.sample.system_prompt=be brief",
    ]
    with serving(server):
        asked = recipe(folder, *settings, f"answers.sample.http.url={server.url}", out="served")
        some = sample(asked)
        assert (some.answers, some.drawn, len(server.bodies)) == (15, 15, 18)
        assert "by the same command: HTTP 400: not this one of Bearer (key)" in some.describe()
        assert "3 are missing, and asked for again" in some.describe()
        server.faults = Faults()
        rest = sample(asked)
    assert (rest.answers, rest.drawn, len(server.bodies)) == (18, 3, 21)
    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "be brief"}
    assert len({question["seed"] for question in server.bodies}) == 18
    assert {question["model"] for question in server.bodies} == {f"{folder}/model"}
    assert server.keys == {f"Bearer {KEY}"}
    assert {line["tokens"] for line in lines(rest)} == {3}
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert [path for path in [*files(folder / "served"), *files(session)] if KEY.encode() in path.read_bytes()] == []


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_server_that_refuses_its_key_stops_the_job_in_one_line_and_what_it_has_answered_is_kept(folder: Path) -> None:
    """The answers arrive together with the refusal."""
    server = AnswerServer(truth, Faults(refused="swap", refused_status=401, seconds=0.5))
    settings = ["answers.sample.engine=http", "answers.sample.http.at_once=18", "answers.sample.http.model=served"]
    with serving(server):
        asked = recipe(folder, *settings, f"answers.sample.http.url={server.url}", out="stopped")
        with pytest.raises(EndpointError) as error:
            sample(asked)
        server.faults = Faults()
        rest = sample(asked)
    assert str(error.value) == (
        f"{server.url}: HTTP 401: not this one; name a key that it takes, by key_variable or key_file"
    )
    assert (rest.answers, rest.drawn, rest.model) == (18, 3, "served")


@pytest.mark.parametrize("parameters", [{}, {"top_k": 20, "seed": None}])
def test_a_question_holds_how_an_answer_is_decoded_and_what_is_added_for_the_server(
    folder: Path, parameters: dict[str, Any]
) -> None:
    """What is added has answers of its own; without it they are those of earlier versions."""
    decoding = "answers.sample.decoding={temperature: 0.5, max_new_tokens: 9, stop: [END], seed: 3}"
    asked = recipe(folder, decoding, f"answers.sample.http.parameters={json.dumps(parameters)}")
    engine = HttpEngine(asked)
    prompt = AskedPrompt((Message(role="user", content="sort b a"),), "prompts.jsonl", 0)
    body = request_body(question_of(AskedAnswer(prompt, 1), asked.answers.sample), engine.endpoint)
    assert body.pop("seed", None) == (None if parameters else key_seed(prompt.prompt_id, 1, 3) % 2**31)
    assert body == {
        "model": f"{folder}/model",
        "messages": [{"role": "user", "content": "sort b a"}],
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 9,
        "stop": ["END"],
        **({"top_k": 20} if parameters else {}),
    }
    known = {"engine": "http", "url": "http://127.0.0.1:8000/v1", "name": f"{folder}/model"}
    assert engine.identity == {**known, **({"parameters": parameters} if parameters else {})}


def files(folder: Path) -> list[Path]:
    return [
        Path(parent) / name for parent, _, names in os.walk(folder) for name in names if (Path(parent) / name).is_file()
    ]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["answers.sample.model=./nothing/there"],
            "answers.sample.model './nothing/there' is no folder; correct the path",
        ),
        (["answers.sample.model={folder}"], "is neither a run nor a model: it has neither a recipe nor a config.json"),
        (["answers.sample.prompts.source.path={folder}/none.jsonl"], "answers.sample.prompts.source.path"),
        (["answers.sample.prompts.skip=6"], "nothing is left to answer"),
        (["answers.sample.prompts.source.path={folder}/wild.jsonl"], "control_token"),
        (["answers.sample.prompts.source.path={folder}/long.jsonl"], "prompt_too_long"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line_before_ray_starts(
    folder: Path, overrides: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "wild.jsonl").write_text(json.dumps({"prompt": "sort <eos> a"}) + "\n")
    (folder / "long.jsonl").write_text(json.dumps({"prompt": "sort " + "a " * 5000}) + "\n")
    with pytest.raises(MixDPOError) as error:
        sample(recipe(folder, *(override.format(folder=folder) for override in overrides)))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "starting Ray" not in capsys.readouterr().err


def test_rows_that_hold_no_prompt_and_prompts_that_the_model_cannot_be_asked_are_told_apart(folder: Path) -> None:
    """One of four rows may be refused; of the three prompts that are left, one is one too many."""
    rows = [{"prompt": prompt} for prompt in ("sort b a", "", "sort <eos> a", "sort c a")]
    (folder / "mixed.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = f"{{path: {folder / 'mixed.jsonl'}, max_quarantined_fraction: 0.25}}"
    settings = [f"answers.sample.prompts.source={source}"]
    with pytest.raises(
        QuarantineError, match=r"1 of 3 rows were refused.*all: .*recipe\.unanswerable\.quarantine\.jsonl"
    ):
        sample(recipe(folder, *settings, out="mixed"))
    told = {
        file.name: [(one.row, one.reason) for one in Quarantine.read(str(file)).refusals]
        for file in (folder / "mixed" / "samples").iterdir()
    }
    assert told == {
        "recipe.quarantine.jsonl": [(1, "empty_prompt")],
        "recipe.unanswerable.quarantine.jsonl": [(2, "control_token")],
    }
