"""Settings that earlier versions had, or had not: what a recipe that names one is told, and how records are read."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from mixdpo_ray.recipe.recipe import Recipe

_BUCKETS = "a bucket holds 200 million elements, or the model where it is smaller; leave it out"
GONE = {  # setting -> what does this now
    "cluster.prefetch_windows": "4 windows are read ahead of training; leave it out",
    "cluster.windows_per_read": "a read task fetches 10 windows; leave it out",
    "compare.world": "compare.playground does this now, and paths begin with <playground>",
    "curriculum.threshold.tolerance": "margins within 1e-9 of value count as equal to it; leave it out",
    "data.max_quarantined_fraction": "data.source.max_quarantined_fraction does this now, and each source has its own",
    "data.max_row_bytes": "data.source.max_row_bytes does this now",
    "deepspeed.allgather_bucket_size": _BUCKETS,
    "deepspeed.reduce_bucket_size": _BUCKETS,
    "output.tensorboard": "output.trackers does this now, as output.trackers=[tensorboard]",
    "sample": "answers.sample does this now",
    "train.max_grad_norm": "train.optimizer.max_grad_norm does this now",
}
RENAMED = {
    "compare.world": "compare.playground",
    "data.max_quarantined_fraction": "data.source.max_quarantined_fraction",
    "data.max_row_bytes": "data.source.max_row_bytes",
    "output.tensorboard": "output.trackers",
    "sample": "answers.sample",
    "train.max_grad_norm": "train.optimizer.max_grad_norm",
}
TRANSLATED: Mapping[str, Callable[[Any], Any]] = {  # values that are written in another way now
    "output.tensorboard": lambda on: {"tensorboard": {}} if on else {},
}


def recorded_recipe(content: Mapping[str, Any]) -> Recipe:
    """The recipe in a recipe.json, which an earlier version may have written."""
    return Recipe.model_validate(without_gone(content))


def recorded_packing(content: Mapping[str, Any]) -> Any:
    """What model.packing was: earlier versions knew none, and padded all rows."""
    return content["model"].get("packing", False)


def without_gone(content: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded settings as they are called today. What was left out of the recipe changes nothing that was made."""
    tree: dict[str, Any] = copy.deepcopy(dict(content))
    for setting in GONE:
        *parents, last = setting.split(".")
        section: Any = tree
        for parent in parents:
            section = section.get(parent) if isinstance(section, dict) else None
        if isinstance(section, dict) and last in section:
            value = section.pop(last)
            if setting in RENAMED:
                value = TRANSLATED.get(setting, lambda value: value)(value)
                *sections, name = RENAMED[setting].split(".")
                reduce(lambda inner, one: inner.setdefault(one, {}), sections, tree).setdefault(name, value)
    if tree.get("model"):
        tree["model"]["packing"] = recorded_packing(tree)
    for section in (tree.get("model"), tree.get("data", {}).get("source")):
        if section:
            section["path"] = _renamed_in_path(section["path"])
    return tree


def _renamed_in_path(path: Any) -> Any:
    return path.replace("<world>", "<playground>") if isinstance(path, str) else path
