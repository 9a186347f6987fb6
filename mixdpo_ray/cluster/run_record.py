"""A run's folder: whose it is, whether it is finished, and that one driver at a time uses it."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.recipe.recipe import Recipe, fingerprint

RECIPE, SUMMARY, FAILURE, LOCK = "recipe.json", "summary.json", "failure.txt", "driver.lock"


def run_folder(recipe: Recipe) -> str:
    return storage.join(recipe.output.storage_path, "runs", recipe.output.name)


def claim(recipe: Recipe, prepared_digest: str) -> str:
    """The run's training fingerprint, once the folder is known to be free or of this very training."""
    folder = run_folder(recipe)
    if recipe.output.fresh:
        storage.delete(folder)
    return claim_folder(folder, recipe, prepared_digest)


def claim_folder(
    folder: str, recipe: Recipe, prepared_digest: str, otherwise: str = "choose another output.name"
) -> str:
    """`otherwise`: what to do where another training lies there."""
    identity = {**recipe.training_identity(), "prepared": prepared_digest}
    path = storage.join(folder, RECIPE)
    if storage.exists(path):
        before = json.loads(storage.read_bytes(path))["identity"]
        if changes := differences(before, identity):
            raise RunConflictError(
                f"{folder} belongs to another training ({'; '.join(changes)}): {otherwise}, "
                "or output.fresh=true to delete it and start over"
            )
    content = {"recipe": recipe.to_dict(), "identity": identity}
    storage.write_bytes(path, json.dumps(content, indent=2).encode())
    return fingerprint(identity)


def differences(before: object, after: object, name: str = "") -> list[str]:
    """Each changed setting by its dotted name."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = list(dict.fromkeys([*before, *after]))
        return [
            line
            for key in keys
            for line in differences(before.get(key), after.get(key), f"{name}.{key}" if name else key)
        ]
    return [] if before == after else [f"{name} was {before}, is {after}"]


def finished_summary(recipe: Recipe, steps: int) -> dict[str, Any] | None:
    """The summary of a run that already reached its last step."""
    path = storage.join(run_folder(recipe), SUMMARY)
    if not storage.exists(path):
        return None
    summary: dict[str, Any] = json.loads(storage.read_bytes(path))
    return summary if summary["steps"] == steps else None


def write_summary(recipe: Recipe, summary: Mapping[str, Any]) -> None:
    storage.write_bytes(storage.join(run_folder(recipe), SUMMARY), json.dumps(summary, indent=2).encode())


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Keep a second driver on this machine out; the operating system lets go when this one dies, however it dies.

    Drivers elsewhere on the cluster are kept out by the run's actor (train.py), whose name can be taken once.
    """
    if not storage.is_local(folder):
        yield
        return
    inside = storage.local(folder)
    path = inside.with_name(f".{inside.name}.{LOCK}")
    with storage.explained(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunConflictError(
                f"{folder} is in use by another process: wait for it, or choose another output.name"
            ) from None
        yield
