"""What lies in the folder of a run: whose it is, how it ended, and that one driver at a time uses it.

Studies and comparisons have such a folder too, and so has each of their trainings. Whoever needs one of its files asks
here: the names stand in this module alone. What is written can be read by later versions, and is never half there.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.folder_lock import FolderLock
from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.errors import RunConflictError, StorageError
from mixdpo_ray.recipe.gone import recorded_packing
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.storage import join


def run_folder(recipe: Recipe) -> str:
    return join(recipe.output.storage_path, "runs", recipe.output.name)


def arm_folder(name: str, seed: int) -> str:
    """Inside a comparison's; names are for people, and two of them may differ in a comma alone."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower()[:40]
    return join(f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}", f"seed-{seed}")


def identity_of(recipe: Recipe, prepared_digest: str) -> dict[str, Any]:
    """What a training is: a folder that holds another one is not continued."""
    return {**recipe.training_identity(), "prepared": prepared_digest}


@dataclass(frozen=True)
class RecordedRecipe:
    """What recipe.json says: what was asked for, what must stay as it is, and with that what is in use."""

    recipe: dict[str, Any]
    identity: dict[str, Any]
    models: Sequence[dict[str, Any]]  # that the trainings begin with

    @property
    def prepared(self) -> list[str]:
        """The content digests of its prepared tables; a run has one, and its record names it without a list."""
        named: str | list[str] = self.identity.get("prepared", [])
        return [named] if isinstance(named, str) else named


@dataclass(frozen=True)
class RunRecord:
    folder: str

    @property
    def checkpoints(self) -> str:
        return join(self.folder, "checkpoints")

    @property
    def exported(self) -> str:
        """The folder of the models that were put together of checkpoints."""
        return join(self.folder, "exported")

    @property
    def model(self) -> str:
        """The folder of the exported model."""
        return join(self.folder, "model")

    @property
    def adapter(self) -> str:
        """The folder of the exported adapter, where one was asked for."""
        return join(self.folder, "adapter")

    @property
    def scratch(self) -> str:
        """The folder that Ray may write to while the run is going on."""
        return join(self.folder, "ray")

    @property
    def recipe_file(self) -> str:
        return join(self.folder, "recipe.json")

    @property
    def summary_file(self) -> str:
        return join(self.folder, "summary.json")

    @property
    def failure_file(self) -> str:
        return join(self.folder, "failure.txt")

    @property
    def pushed_file(self) -> str:
        return join(self.folder, "pushed.json")

    @property
    def lock(self) -> FolderLock:
        return FolderLock(self.folder, ".driver.lock")

    def locked(self) -> AbstractContextManager[None]:
        """Keep a second driver on this machine out.

        Drivers elsewhere on the cluster are kept out by the run's actor (run_actor.py), whose name can be taken once.
        """
        return self.lock.or_refuse("wait for it, or choose another output.name")

    def as_begun(self, recipe: Recipe) -> Recipe:
        """The recipe with rows packed or padded as they were when the folder was begun, unless it says itself how.

        Another way would give the same training up to the last bits, and a resumed one must not differ in any.
        """
        before = self.recorded()
        says = "packing" in recipe.model.model_fields_set or isinstance(
            recipe.train.per_device_train_batch_size, TokenBudget
        )
        if before is None or recipe.output.fresh or says:
            return recipe
        packing = recorded_packing(before.recipe)
        return recipe.model_copy(update={"model": recipe.model.model_copy(update={"packing": packing})})

    def claim(self, recipe: Recipe, identity: Mapping[str, Any], otherwise: str = "choose another output.name") -> str:
        """The training's fingerprint, once the folder is known to be free or of this very training.

        `otherwise`: what to do where another training lies there.
        """
        before = self.recorded()
        if before is not None and (changes := differences(before.identity, identity)) and self.has_trained:
            raise RunConflictError(
                f"{self.folder} belongs to another training ({'; '.join(changes)}): {otherwise}, "
                "or output.fresh=true to delete it and start over"
            )
        if before is not None and before.identity != identity and storage.exists(self.failure_file):
            storage.delete(self.failure_file)  # of what was corrected
        self.write_recipe(recipe, identity)
        return fingerprint(identity)

    @property
    def has_trained(self) -> bool:
        """Whether there is anything to continue or to lose; an evaluation before the first step is neither."""
        from mixdpo_ray.training.checkpoints import committed_steps
        from mixdpo_ray.training.metrics import STEP_METRICS, read_lines  # torch

        if committed_steps(self.checkpoints) or self.summary() is not None:
            return True
        return any("kind" not in line for line in read_lines(join(self.folder, STEP_METRICS)))

    def write_recipe(
        self, recipe: Recipe, identity: Mapping[str, Any], models: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """`models`: where they are others than the recipe's own."""
        content = {"recipe": recipe.to_dict(), "identity": identity}
        _write(self.recipe_file, content if models is None else {**content, "models": models})

    def recorded(self) -> RecordedRecipe | None:
        content = _read(self.recipe_file)
        if content is None:
            return None
        try:
            recipe, identity = content["recipe"], content["identity"]
            return RecordedRecipe(recipe, identity, content.get("models") or [recipe["model"]])
        except KeyError as error:
            raise StorageError(f"{self.recipe_file} is no record of a run: it has no {error}; remove it") from None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        _write(self.summary_file, summary)

    def summary(self) -> dict[str, Any] | None:
        """None: it has not ended, or has failed."""
        return _read(self.summary_file)

    def finished(self, steps: int) -> dict[str, Any] | None:
        """The summary of a run that already reached its last step."""
        summary = self.summary()
        return summary if summary is not None and summary["steps"] == steps else None

    def write_pushed(self, pushed: Mapping[str, Any]) -> None:
        _write(self.pushed_file, pushed)

    def pushed(self) -> dict[str, Any] | None:
        """What of it was last pushed to the Hub, and where."""
        return _read(self.pushed_file)

    def write_failure(self, reason: str) -> str:
        """The reason in one line, which is what stays."""
        line = " ".join(reason.split())
        storage.write_bytes(self.failure_file, line.encode())
        return line

    def failure(self) -> str | None:
        return storage.read_bytes(self.failure_file).decode() if storage.exists(self.failure_file) else None


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


def _write(path: str, content: Mapping[str, Any]) -> None:
    storage.write_bytes(path, json.dumps(content, indent=2).encode())


def _read(path: str) -> dict[str, Any] | None:
    if not storage.exists(path):
        return None
    try:
        content: dict[str, Any] = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}; remove it and repeat the command") from None
    return content
