"""Whose numbers the gauges tell, and a dashboard that asks for no others. Real ones are in test_worker_group.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mixdpo_ray.cluster.gauges import GAUGES, TAGS, RunTags

DASHBOARD = Path(__file__).parents[2] / "jobs" / "clusters" / "grafana-dashboard.json"


@pytest.mark.parametrize(
    ("folder", "tags"),
    [
        ("s3://bucket/out/runs/llama/", RunTags(run="llama")),
        ("/out/studies/beta", RunTags(study="beta")),
        ("/out/comparisons/arms", RunTags(study="arms")),
        ("/out/scores/0123abcd/half-1", RunTags(run="half-1")),
        ("", RunTags()),
    ],
)
def test_a_folder_says_whose_numbers_they_are(folder: str, tags: RunTags) -> None:
    assert RunTags.of(folder) == tags


def test_the_dashboard_asks_for_what_is_set_and_for_all_of_it() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert {name for text in asked for name in re.findall(r"\bray_(\w+)", text)} == set(GAUGES)
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    assert set(variables) == {"datasource", *TAGS}
    assert all(re.match(r"label_values\(ray_mixdpo_loss, \w+\)", variables[tag]["definition"]) for tag in TAGS)


def test_the_panels_of_the_dashboard_lie_side_by_side() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
