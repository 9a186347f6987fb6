"""Models from the Hub, fetched once on each node before workers start: 64 of them would ask 64 times at once."""

from __future__ import annotations

import os
from collections.abc import Sequence

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mixdpo_ray import storage
from mixdpo_ray.bar import waiting
from mixdpo_ray.cluster.connect import room_on_nodes, worker_resources
from mixdpo_ray.cluster.node_labels import offered_by
from mixdpo_ray.errors import ModelError
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.training.hub import silence
from mixdpo_ray.training.hub_fetch import WERE_FETCHED, FetchedPart, fetch
from mixdpo_ray.wording import first_line

Wanted = tuple[str, str | None, FetchedPart]  # a name on the Hub, its revision, and what is read of it


def fetch_models(recipe: Recipe) -> None:
    """Nothing where models lie in folders or in the cache, or where the Hub is silent: then the cache has to do."""
    models = models_on_hub(recipe)
    if not models:
        return
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or silence(constants.ENDPOINT):
        return
    here = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    rooms = room_on_nodes([offered_by(recipe.cluster, node) for node in alive], worker_resources(recipe.cluster))
    others = [node for node, room in zip(alive, rooms, strict=True) if room and node["NodeID"] != here]
    where = f" from the Hub, once on each of {len(others) + 1} nodes" if others else " from the Hub"
    with waiting(f"fetching {', '.join(name for name, *_ in models)}{where}"):
        asked = [
            ray.remote(num_cpus=0, max_retries=0)(fetch_here)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(models)
            for node in others
        ]
        hosts = [node["NodeManagerHostname"] for node in others]
        problems = [("", fetch_here(models)), *zip(hosts, ray.get(asked), strict=True)]
    for host, problem in problems:
        if problem:
            raise ModelError(f"{problem}{f' (on {host})' if host else ''}: correct the name, or mend the network")
    os.environ[WERE_FETCHED] = "1"


def models_on_hub(recipe: Recipe) -> list[Wanted]:
    """What training workers load by name."""
    model = recipe.model
    named: list[Wanted] = [(model.path, model.revision, "model")]
    named += [(model.reference, None, "model")] if model.reference else []
    named += [(model.tokenizer, None, "tokenizer")] if model.tokenizer else []
    named += [(model.lora.adapter, None, "adapter")] if model.lora is not None and model.lora.adapter else []
    return [one for one in named if storage.may_be_on_hub(one[0]) and not storage.local(one[0]).exists()]


def fetch_here(models: Sequence[Wanted]) -> str | None:
    """Run on each node. What went wrong, in one line: errors of the library do not travel well."""
    for name, revision, part in models:
        try:
            fetch(name, revision, part)
        except Exception as error:  # noqa: BLE001 the library raises a dozen kinds
            return f"{name} cannot be fetched from the Hub: {first_line(error)}"
    return None
