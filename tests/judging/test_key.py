"""The key is sent, and nobody else sees it."""

from __future__ import annotations

import pickle
import traceback
from pathlib import Path

import pytest

from mixdpo_ray.errors import EndpointError
from mixdpo_ray.judging.client import EndpointClient
from mixdpo_ray.judging.key import EndpointKey
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from tests.judging.questions import KEY, asked, judge_settings, questions, truth


def test_a_server_that_quotes_the_key_finds_it_in_no_reply_error_or_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.setenv("PLANTED_KEY", KEY)
    for named in ({"key_file": str(tmp_path / "key")}, {"key_variable": "PLANTED_KEY"}):
        server = JudgeServer(truth, Faults(quoted_key=True))
        with serving(server):
            replies = asked(server, questions(1), **named)
            server.faults = Faults(status=400, quoted_key=True)
            replies += asked(server, questions(1), **named)
            server.faults = Faults(status=401, quoted_key=True)
            with pytest.raises(EndpointError) as error:
                asked(server, questions(1), **named)
        assert server.keys == {f"Bearer {KEY}"}
        assert "of Bearer (key)" in replies[0].text
        assert replies[1].failure == "HTTP 400: no of Bearer (key)"
        shown = "".join(traceback.format_exception(error.value))
        assert KEY not in shown + repr([replies, error.value, judge_settings(server, **named)])
        assert KEY.encode() not in pickle.dumps([error.value, replies, judge_settings(server, **named)])


def test_a_server_that_sends_requests_on_does_not_lead_the_key_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    with serving(JudgeServer(truth)) as other:
        faults = Faults(status=307, location=f"{other.url}/chat/completions")
        with serving(JudgeServer(truth, faults)) as server, pytest.raises(EndpointError, match="correct the address"):
            asked(server, questions(1), key_variable="PLANTED_KEY")
    assert not other.begun


def test_a_key_shows_itself_to_nobody() -> None:
    key = EndpointKey(KEY)
    assert repr(key) == f"{key}" == "EndpointKey((key))"
    with pytest.raises(TypeError, match="a key stays in the process that has read it"):
        pickle.dumps(key)


def test_a_key_that_is_not_there_is_named_by_its_variable_or_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("two words")
    for named, told in (
        ({"key_variable": "NO_SUCH_KEY"}, r"key_variable NO_SUCH_KEY is not set on .*: set it before Ray starts there"),
        ({"key_file": "/nowhere/key"}, r"key_file /nowhere/key: No such file or directory on "),
        ({"key_file": f"{tmp_path}/key"}, r"key_file .*/key on .* holds no key: it must be one word"),
    ):
        with pytest.raises(EndpointError, match=told):
            EndpointClient(judge_settings(JudgeServer(truth), **named))
