"""What the doctor says of trackers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.doctor.examinations import changed, findings, red, sound

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    return sound(tmp_path)


def test_a_tracker_without_its_key_is_red(
    tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    said = red(changed(tree, output__trackers={"wandb": {}}), tmp_path, "trackers")
    assert said.startswith("output.trackers.wandb: no key for api.wandb.ai: set WANDB_API_KEY, run `wandb login`")
    offline = findings(changed(tree, output__trackers={"wandb": {"offline": True}}), tmp_path)["trackers"]
    assert (offline.state, offline.text) == ("green", "wandb; a training goes on without one that is down")
