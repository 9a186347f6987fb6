"""What a Prometheus would read of this machine's Ray."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Mapping

import ray

PATIENCE = 40.0  # Ray exports every ten seconds, unless its environment says otherwise


def scraped() -> list[tuple[str, dict[str, str], float]]:
    """Each gauge of ours at the port where this node exports metrics: its name, its tags, its value."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    lines = re.findall(r"^ray_(mixdpo_\w+)\{(.*)\} (\S+)$", text, flags=re.MULTILINE)
    return [(name, dict(re.findall(r'(\w+)="([^"]*)"', tags)), float(value)) for name, tags, value in lines]


def scraped_of(tags: Mapping[str, str], *needed: str) -> dict[str, float]:
    """The gauges with these tags, once the needed ones are among them."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = {name: value for name, own, value in scraped() if tags.items() <= own.items()}
        if set(needed) <= found.keys():
            return found
        assert time.monotonic() < deadline, f"{tags} exported {sorted(found)}"
        time.sleep(0.3)


def wait_for_gauge(tags: Mapping[str, str], name: str, value: float) -> None:
    """Return once the gauge with these tags has the value: an export shows what was so a moment ago."""
    deadline = time.monotonic() + PATIENCE
    while (found := scraped_of(tags, name)[name]) != value:
        assert time.monotonic() < deadline, f"{tags} still exported {name} {found}, not {value}"
        time.sleep(0.3)
