"""A model is fetched whole from a busy Hub, and then nobody asks it any more."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from mixdpo_ray.training.hub import brief_hub
from mixdpo_ray.training.hub_fetch import WERE_FETCHED, fetch, seconds_to_wait, whole_snapshot

NAME, COMMIT = "owner/tiny", "a" * 40


class Hub(ThreadingHTTPServer):
    """As much of the Hub's API as is asked for a model's files, busy for its first answers."""

    def __init__(self, folder: Path, busy: int):
        super().__init__(("127.0.0.1", 0), Answer)
        self.folder, self.busy, self.asked = folder, busy, list[str]()


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        if self.server.busy:
            self.server.busy -= 1
            self._send(429, b"busy", {"Retry-After": "1"})
        elif self.path.startswith("/api/models/"):
            files = [{"rfilename": path.name} for path in self.server.folder.iterdir()]
            files += [{"rfilename": "original/model.safetensors"}, {"rfilename": "pytorch_model.bin"}]
            tree = [{"type": "file", "path": one["rfilename"], "oid": "b" * 40, "size": 1} for one in files]
            told = tree if "/tree/" in self.path else {"id": NAME, "sha": COMMIT, "siblings": files}
            self._send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif not (file := self.server.folder / self.path.rpartition("/")[2].partition("?")[0]).is_file():
            self._send(404, b"no such file", {})
        else:
            content = file.read_bytes()
            self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *told: object) -> None:
        pass


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(tiny / "model", busy=2)
    Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", here + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    server.server_close()


def test_a_busy_hub_is_asked_again_and_a_model_that_is_whole_never(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    assert whole_snapshot(NAME) is None
    folder = fetch(NAME)
    assert time.monotonic() - began >= 1, "it said how long to wait"
    assert {path.name for path in folder.iterdir()} == {path.name for path in hub.folder.iterdir()}
    asked = len(hub.asked)
    assert fetch(NAME) == whole_snapshot(NAME) == folder
    monkeypatch.setenv(WERE_FETCHED, "1")
    with brief_hub(NAME):
        assert constants.HF_HUB_OFFLINE
    assert len(hub.asked) == asked
    (folder / "model.safetensors").unlink()
    assert whole_snapshot(NAME) is None, "its weights are missing"


def test_of_a_tokenizer_no_weights_are_fetched_and_what_is_there_is_asked_for_no_more(hub: Hub) -> None:
    hub.busy = 0
    folder = fetch(NAME, part="tokenizer")
    assert (folder / "tokenizer.json").is_file()
    assert not [path.name for path in folder.iterdir() if path.suffix == ".safetensors"]
    asked = len(hub.asked)
    assert fetch(NAME, part="tokenizer") == folder
    assert len(hub.asked) == asked


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (429, {}, 4.0),
        (503, {"Retry-After": "soon"}, 4.0),
        (404, {}, None),
        (401, {}, None),
    ],
)
def test_only_what_may_pass_is_waited_for(status: int, headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(SimpleNamespace(status_code=status, headers=headers), 2) == seconds
