"""Whether a model that is only run lies whole with every worker, or in shards over all of them.

The setting cluster.scoring says it; by itself it is decided by what a copy needs (training/scoring_memory.py) and what
a worker has free. Whole is faster: nothing is gathered, and no worker waits for another.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import room_on_nodes, worker_resources
from mixdpo_ray.cluster.node_labels import offered
from mixdpo_ray.cluster.nodes import Node, survey
from mixdpo_ray.errors import ModelError, RecipeError, ResourceError
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.wording import size_text

SURELY_FITS = 1 << 30  # bytes of weights: nobody is asked whether there is room for them


@dataclass(frozen=True)
class ScoredModel:
    """A model that workers run, and the most that they run it on."""

    model: ModelSettings
    kind: str  # the class of transformers that loads it
    tokens: int  # of a batch
    logits: int  # positions whose logits exist at once
    cached: bool  # keys and values of its tokens are kept
    offload: bool  # its shards, to the host's memory
    storage_path: str


@dataclass(frozen=True)
class WayOfScoring:
    sharded: bool
    text: str  # which way, and why


def scored_model(
    recipe: Recipe,
    model: ModelSettings,
    tokens: int,
    logits: int = 0,
    *,
    kind: str = "AutoModelForCausalLM",
    cached: bool = False,
) -> ScoredModel:
    path, offload = storage.absolute(recipe.output.storage_path), recipe.deepspeed.offload_parameters
    return ScoredModel(model, kind, tokens, logits, cached, offload, path)


def way_of_scoring(
    scored: ScoredModel, cluster: ClusterSettings, *, gpu: bool, nodes: Sequence[Node] | None = None
) -> WayOfScoring:
    """Ray must be connected. `nodes`: those of the cluster, where they were asked already."""
    workers = cluster.fewest_workers
    shards = f"{workers} workers that share it in shards" if workers > 1 else "one worker that holds its only shard"
    if scored.model.lora is not None and scored.model.lora.quantize:
        if cluster.scoring == "sharded":
            raise RecipeError("cluster.scoring=sharded cannot share a base in 4 bits (model.lora.quantize): set whole")
        return WayOfScoring(False, "a whole copy each, in 4 bits")
    if cluster.scoring != "auto":
        sharded = cluster.scoring == "sharded"
        return WayOfScoring(
            sharded, f"{shards if sharded else 'a whole copy each'} (cluster.scoring={cluster.scoring})"
        )
    if (size := _weight_files(scored.model)) and size < SURELY_FITS:
        return WayOfScoring(False, f"a whole copy each of {size_text(size)}")
    from mixdpo_ray.training.scoring_memory import ScoredShape  # brings transformers

    try:
        with _configuration(scored.model) as here:
            shape = ScoredShape.read(here, scored.kind)
    except ModelError:  # whoever loads it says why
        return WayOfScoring(False, "a whole copy each, whose size is not known")
    asked = {"gpu": gpu, "cached": scored.cached, "offload": scored.offload}
    whole = shape.for_worker(scored.tokens, scored.logits, None, **asked).device_bytes
    shared = shape.for_worker(scored.tokens, scored.logits, workers, **asked).device_bytes
    free = _free_for_one(nodes or survey(scored.storage_path, gpu_memory=gpu), cluster, gpu=gpu)
    if free is None:
        return WayOfScoring(False, f"a whole copy each, {size_text(whole)}; no GPU could be asked what it has")
    where = "a GPU" if gpu else "a worker"
    has = f"{where} has {size_text(free)} free"
    if whole <= free or (not gpu and shared >= whole):
        return WayOfScoring(False, f"a whole copy each of {size_text(whole)}, and {has}")
    if gpu and shared > free:
        raise ResourceError(
            f"{scored.model.path} needs {size_text(whole)} whole and {size_text(shared)} with each of {shards}, and "
            f"{has}: raise cluster.num_workers, set deepspeed.offload_parameters=true, or use larger GPUs"
        )
    return WayOfScoring(True, f"{shards}, {size_text(shared)} each: a copy needs {size_text(whole)}, and {has}")


def _weight_files(model: ModelSettings) -> int:
    """Bytes of a local model's weights; 0 where there are none to be seen."""
    folder = Path(model.path)
    if not storage.is_local(model.path) or not folder.is_dir():
        return 0
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".safetensors", ".bin"))


def _free_for_one(nodes: Sequence[Node], cluster: ClusterSettings, *, gpu: bool) -> int | None:
    """Bytes that the worker with the least has; None where no GPU was asked."""
    if gpu:
        return min((free for node in nodes for free, _ in node.answer.gpu_memory), default=None)
    offers = [offered(cluster, node.resources, node.labels) for node in nodes]
    rooms = room_on_nodes(offers, worker_resources(cluster))
    copies = cluster.reference_workers or cluster.fewest_workers
    shares = [node.answer.free_memory // min(room, copies) for node, room in zip(nodes, rooms, strict=True) if room]
    return min(shares, default=nodes[0].answer.free_memory)


@contextmanager
def _configuration(model: ModelSettings) -> Iterator[ModelSettings]:
    """The model's configuration on this machine's disk, where a training left it in an object store."""
    if storage.is_local(model.path):
        yield model
        return
    with tempfile.TemporaryDirectory() as folder:
        storage.copy(storage.join(model.path, "config.json"), f"{folder}/config.json")
        yield model.model_copy(update={"path": folder})
