"""A stand-in of the Hugging Face Hub's API, as far as repos are made, written and looked at; it keeps what arrives.

The metadata of a card is checked as the Hub documents it: names of repos, a licence, results that have a task and a
metric. It can be told to refuse the next requests.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_standInsToken"
USER, TEAM = "me", "team"
NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
LICENCES = {"apache-2.0", "mit", "llama3", "cc-by-4.0", "other", "unknown"}


@dataclass
class Hub:
    """What it holds, what it was asked, and how it answers next."""

    address: str = ""
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)  # by kind/name
    commits: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # method, path, status
    refusals: list[int] = field(default_factory=list)  # of the next requests that make a repo or commit to one
    role: str = "write"

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """`name`: with its kind, such as models/me/own."""
        found: dict[str, bytes] = self.repos[name]["branches"][revision]
        return found


def problems_of_card(content: str, kind: str) -> list[str]:
    """What the Hub would refuse of the metadata of a README."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if match is None:
        return []
    data = yaml.safe_load(match[1]) or {}
    found = []
    names = [data["base_model"]] if isinstance(data.get("base_model"), str) else data.get("base_model", [])
    for name in [*names, *(data.get("datasets", []) if kind == "model" else [])]:
        if not NAME.fullmatch(str(name)):
            found.append(f"{name!r} is not a valid repo name")
    if "license" in data and data["license"] not in LICENCES:
        found.append('"license" must be one of the list')
    if not all(isinstance(tag, str) for tag in data.get("tags", [])):
        found.append('"tags" must be strings')
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str):
            found.append('"model-index[0].name" is required')
        for result in model.get("results", []):
            if "type" not in result.get("task", {}) or not {"type", "name"} <= set(result.get("dataset", {})):
                found.append('"model-index[0].results" needs task and dataset')
            if not all({"type", "value"} <= set(metric) for metric in result.get("metrics", [{}])):
                found.append('"model-index[0].results.metrics" needs type and value')
    return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(*self._get(self.path.partition("?")[0], self.server.hub))

    def do_POST(self) -> None:
        body, hub = self.rfile.read(int(self.headers.get("Content-Length", 0))), self.server.hub
        path = self.path.partition("?")[0]
        writes = path == "/api/repos/create" or "/commit/" in path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" and path != "/api/validate-yaml":
            return self._answer(401, {"error": f"Invalid token {self.headers.get('Authorization')}"})
        if writes and hub.refusals:
            return self._answer(hub.refusals.pop(0), {"error": "not now"})
        return self._answer(*self._post(path, body, hub))

    def _get(self, path: str, hub: Hub) -> tuple[int, Any]:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid token"}
        if path == "/api/whoami-v2":
            return 200, {"name": USER, "orgs": [{"name": TEAM}], "auth": {"accessToken": {"role": hub.role}}}
        match = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/auth-check/write)?(/revision/\w+)?", path)
        if match is not None and (name := f"{match[1]}/{match[2]}") in hub.repos:
            return 200, {"id": match[2], "sha": hub.repos[name]["sha"], "siblings": [], "private": True}
        return 404, {"error": "Repository not found"}

    def _post(self, path: str, body: bytes, hub: Hub) -> tuple[int, Any]:
        if path == "/api/validate-yaml":
            asked = json.loads(body)
            found = problems_of_card(asked["content"], asked["repoType"])
            return (400 if found else 200), {"errors": [{"message": one} for one in found], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body), hub)
        match = re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)/(preupload|commit|branch)/([^/]+)", path)
        if match is None or (name := f"{match[1]}/{match[2]}") not in hub.repos:
            return 404, {"error": f"no {path}"}
        if match[3] == "branch":
            hub.repos[name]["branches"].setdefault(match[4], {})
            return 200, {}
        if match[3] == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return 200, {"files": files}
        return self._commit(name, match[4], body, hub)

    def _create(self, asked: dict[str, Any], hub: Hub) -> tuple[int, Any]:
        kind = asked.get("type") or "model"
        owner = asked.get("organization") or USER
        name, prefix = f"{kind}s/{owner}/{asked['name']}", "" if kind == "model" else f"{kind}s/"
        there, private = name in hub.repos, asked.get("private") or asked.get("visibility") == "private"
        hub.repos.setdefault(name, {"private": private, "branches": {"main": {}}, "sha": "0" * 40})
        url = f"{hub.address}/{prefix}{owner}/{asked['name']}"
        return (409 if there else 200), {"url": url, "error": "You already created this repo"} if there else {
            "url": url
        }

    def _commit(self, name: str, revision: str, body: bytes, hub: Hub) -> tuple[int, Any]:
        lines = [json.loads(line) for line in body.splitlines()]
        for line in lines:
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                hub.repos[name]["branches"][revision][line["value"]["path"]] = content
        sha = sha256(body).hexdigest()[:40]
        hub.repos[name]["sha"] = sha
        hub.commits.append({"repo": name, "revision": revision, **lines[0]["value"]})
        return 200, {"commitUrl": f"{hub.address}/{name}/commit/{sha}", "commitOid": sha, "success": True}

    def _answer(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.server.hub.asked.append((self.command, self.path, status))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    hub: Hub


@contextmanager
def hub_stand_in() -> Iterator[Hub]:
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
