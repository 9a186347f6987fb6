"""A finished run goes to the Hub once, is not lost where the Hub refuses, and shows its token to nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from pydantic import ValidationError

from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.doctor import push_check
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import Caution
from mixdpo_ray.errors import EndpointError
from mixdpo_ray.recipe.push import PushSettings
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs import push
from mixdpo_ray.runs.push import push_model
from mixdpo_ray.runs.summary import RunReport
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.model_card import CardFacts, model_card
from tests.hub_stand_in import TOKEN, Hub, hub_stand_in
from tests.training.tiny import make_job, make_world

SUMMARY = {
    "steps": 3, "pairs": 32, "seconds": 1.0, "peak_memory_gib": 0.1, "eval_before": {}, "eval_after": {},
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr(push, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with hub_stand_in() as stand_in:
        monkeypatch.setattr(constants, "ENDPOINT", stand_in.address)
        yield stand_in


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_world(tmp_path_factory.mktemp("tiny"))
    (folder / "model" / "config.json").write_text('{"_name_or_path": "org/some-model"}')
    job = make_job(folder, folder / "runs" / "own")
    after = {"eval_rewards/accuracies": 0.75, "eval_pairs/margin_0-inf": 4.0}
    plan = job.plan(PreparedTable.open(job.prepared))
    return model_card(job, CardFacts(plan, 3, {}, after, chats=False))


@pytest.fixture
def finished(card: str, tmp_path: Path) -> RunReport:
    """A finished run: its record, and a model's folder with a card."""
    folder = tmp_path / "out" / "runs" / "own"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "README.md").write_text(card)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    RunRecord(str(folder)).write_summary(SUMMARY)
    return RunReport(str(folder), SUMMARY)


def recipe(tmp_path: Path, to: Any) -> Recipe:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    to = {"repo": to} if isinstance(to, str) else to
    return Recipe.model_validate(
        {
            "model": {"path": "org/some-model"},
            "data": {"source": {"path": "pairs.jsonl"}},
            "output": {
                "storage_path": str(tmp_path / "out"),
                "name": "own",
                "push_to_hub": {"key_file": str(tmp_path / "token"), **to},
            },
        }
    )


def test_a_busy_hub_is_asked_again_and_the_repeated_command_pushes_nothing(
    hub: Hub, finished: RunReport, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.refusals = [429, 500, 503]
    report = push_model(recipe(tmp_path, "me/own"), finished)
    assert report.pushed == f"{hub.address}/me/own"
    assert f"pushed to                      {hub.address}/me/own" in report.describe()
    sent = {path.name: path.read_bytes() for path in Path(finished.folder, "model").iterdir()}
    assert hub.files("models/me/own") == sent
    assert hub.repos["models/me/own"]["private"] is True
    assert [status for _, path, status in hub.asked if path == "/api/repos/create"][:4] == [429, 500, 503, 200]
    before = len(hub.asked)
    assert push_model(recipe(tmp_path, "me/own"), finished).pushed == report.pushed
    assert len(hub.asked) == before
    record = json.loads(Path(finished.folder, "pushed.json").read_text())
    assert (record["repo"], record["steps"], record["commit"]) == ("me/own", 3, hub.repos["models/me/own"]["sha"])
    assert TOKEN not in json.dumps(record) + "".join(capfd.readouterr())


def test_the_card_that_arrives_is_accepted_by_the_librarys_own_check(
    hub: Hub, finished: RunReport, tmp_path: Path
) -> None:
    push_model(recipe(tmp_path, "me/own"), finished)
    card = ModelCard(hub.files("models/me/own")["README.md"].decode())
    card.validate()
    metadata: Any = card.data
    assert metadata.base_model == "org/some-model"
    assert metadata.eval_results[0].metric_value == 0.75
    wrong = ModelCard("---\nbase_model: /home/me/models/base\n---\n# Own\n")
    with pytest.raises(ValueError, match="not a valid repo name"):
        wrong.validate()
    assert str(tmp_path) not in str(card)


def test_a_revision_is_a_branch_and_another_goal_is_pushed_to_anew(
    hub: Hub, finished: RunReport, tmp_path: Path
) -> None:
    push_model(recipe(tmp_path, {"repo": "me/own", "private": False}), finished)
    push_model(recipe(tmp_path, {"repo": "me/own", "revision": "three"}), finished)
    assert hub.repos["models/me/own"]["private"] is False
    assert hub.files("models/me/own", "three") == hub.files("models/me/own")
    assert {one["revision"] for one in hub.commits} == {"main", "three"}


def test_a_refused_push_is_one_line_and_the_same_command_pushes(
    hub: Hub, finished: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path, "me/own")
    (tmp_path / "token").write_text("hf_another\n")
    with pytest.raises(EndpointError, match=r"push_to_hub me/own: .*401.*same command pushes again") as caught:
        push_model(asked, finished)
    assert "\n" not in str(caught.value)
    assert "hf_another" not in str(caught.value)
    assert not Path(finished.folder, "pushed.json").exists()
    (tmp_path / "token").write_text(TOKEN)
    hub.refusals = [500] * 20
    monkeypatch.setattr(push, "TRIES", 3)
    with pytest.raises(EndpointError, match="500"):
        push_model(asked, finished)
    hub.refusals = []
    assert push_model(asked, finished).pushed


def test_a_silent_hub_is_one_line(
    hub: Hub, finished: RunReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "TRIES", 2)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EndpointError, match=r"own/model is finished and stays, and the same command pushes again"):
        push_model(recipe(tmp_path, "me/own"), finished)


def test_without_a_token_a_run_does_not_begin(hub: Hub, tmp_path: Path) -> None:
    asked = recipe(tmp_path, {"repo": "me/own", "key_file": None})
    settings = asked.output.push_to_hub
    assert settings is not None
    with pytest.raises(EndpointError, match=r"there is no token: set HF_TOKEN, run `hf auth login`, or give key_var"):
        push.hub_token(settings)


def test_an_adapter_names_its_base_as_the_hub_does(hub: Hub, finished: RunReport, tmp_path: Path) -> None:
    folder, base = Path(finished.folder), tmp_path / "base"
    (folder / "model").rename(folder / "adapter")
    base.mkdir()
    (base / "config.json").write_text('{"_name_or_path": "org/base"}')
    config = folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({"r": 4, "base_model_name_or_path": str(base)}))
    push_model(recipe(tmp_path, "me/own"), replace(finished, summary={**SUMMARY, "model": str(folder / "adapter")}))
    sent = json.loads(hub.files("models/me/own")["adapter_config.json"])
    assert sent == {"r": 4, "base_model_name_or_path": "org/base"}
    assert str(base) in config.read_text()


def test_the_doctor_says_whether_a_model_can_be_pushed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(to: Any) -> str:
        found = push_check.push(Examination(recipe(tmp_path, to), tmp_path))
        return found.text if isinstance(found, Caution) else found

    assert told("me/own") == "me/own is made by me, private where it is new"
    with pytest.raises(EndpointError, match="key_file /nowhere: No such file"):
        told({"repo": "me/own", "key_file": "/nowhere"})
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "does not answer" in told("me/own")


@pytest.mark.parametrize("name", ["/home/me/model", "a/b/c", "me/-model", "me/a..b", ""])
def test_what_is_no_name_on_the_hub_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="give its name on the Hub, such as me/my-model"):
        PushSettings(repo=name)


def test_a_name_alone_is_enough_and_two_keys_are_too_many() -> None:
    tree = {"model": {"path": "org/base"}, "data": {"source": {"path": "pairs.jsonl"}}}
    read = Recipe.model_validate({**tree, "output": {"push_to_hub": "me/own"}})
    assert read.output.push_to_hub == PushSettings(repo="me/own")
    with pytest.raises(ValidationError, match="both name a key: keep one"):
        PushSettings(repo="me/own", key_file="a", key_variable="B")


def test_the_hub_says_beforehand_who_may_write(hub: Hub, tmp_path: Path) -> None:
    def told(repo: str) -> str:
        settings = recipe(tmp_path, repo).output.push_to_hub
        assert settings is not None
        return push.writer_of(settings)

    assert told("me/own") == "me/own is made by me"
    hub.repos["models/team/own"] = {"private": True, "branches": {"main": {}}, "sha": "1"}
    assert told("team/own") == "team/own is written by me"
    with pytest.raises(EndpointError, match=r"the token is me's and of team, and others is another"):
        told("others/own")
    hub.role = "read"
    with pytest.raises(EndpointError, match="the token of me may only read"):
        told("me/own")
