"""Which nodes cluster.label_selector takes, and what they offer to workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from mixdpo_ray.recipe.cluster import ClusterSettings

KIND = "accelerator_type:"  # begins the name of the resource that Ray gives to nodes with GPUs of a kind
KIND_SHARE = 0.001  # of that resource, which a node has once: Ray Train asks for as much


def selected(labels: Mapping[str, str], selector: Mapping[str, str]) -> bool:
    """Whether a node with these labels is one of those, as Ray decides it: a label that is not there is no value."""
    return all(_selects(value, labels.get(key)) for key, value in selector.items())


def _selects(value: str, label: str | None) -> bool:
    wanted = value.removeprefix("!")
    values = wanted.removeprefix("in(").removesuffix(")").split(",") if wanted.startswith("in(") else [wanted]
    return (label in [one.strip() for one in values]) != value.startswith("!")


def offered(
    settings: ClusterSettings, resources: Mapping[str, float], labels: Mapping[str, str]
) -> Mapping[str, float]:
    """What a node has for workers: nothing where its labels are not selected."""
    return resources if selected(labels, settings.label_selector) else {}


def offered_by(settings: ClusterSettings, node: Mapping[str, Any]) -> Mapping[str, float]:
    """The same of a node as Ray lists it."""
    return offered(settings, node["Resources"], node.get("Labels") or {})


def resources_selected(settings: ClusterSettings) -> dict[str, float]:
    """The sum over living nodes. Ray is connected."""
    total: dict[str, float] = {}
    for node in ray.nodes():
        for name, amount in (offered_by(settings, node) if node["Alive"] else {}).items():
            total[name] = total.get(name, 0.0) + amount
    return total


def selector_text(selector: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in selector.items())


def known_kinds() -> str:
    """The kinds of GPUs that nodes have, for a person who asked for another one. Ray is connected."""
    kinds = sorted(name.removeprefix(KIND) for name in ray.cluster_resources() if name.startswith(KIND))
    return f"the cluster's kinds are {', '.join(kinds)}" if kinds else "no node names a kind"


def without_kinds(resources: Mapping[str, float]) -> dict[str, float]:
    """What an autoscaler's settings can be compared with: they need not name kinds, which nodes find out themselves."""
    return {name: amount for name, amount in resources.items() if not name.startswith(KIND)}


def gpu_node_options(settings: ClusterSettings) -> dict[str, Any]:
    """Options of an actor or a task with a GPU, which put it on nodes that training workers may take."""
    asked = {"label_selector": settings.label_selector or None, "accelerator_type": settings.accelerator_type}
    return {name: value for name, value in asked.items() if value is not None}
