"""A trial of a search, inside Ray Tune: for each rung a whole curriculum, thinned, trained by workers of its own.

Stopping early by the beginning of a curriculum would compare models that have seen easy pairs only. So every rung
starts anew and trains every so-manieth window of each stage, with its schedule fitted to that length; the last one is
the recipe itself. A rung that has a summary is never trained again, and one that was cut continues at its checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune

from mixdpo_ray import storage
from mixdpo_ray.cluster.fit import Listener, fit
from mixdpo_ray.cluster.run_folder import FAILURE, RECIPE, SUMMARY
from mixdpo_ray.cluster.training_job import job_in
from mixdpo_ray.errors import MixDPOError, WorkersError
from mixdpo_ray.pairs.table import PreparedTable
from mixdpo_ray.recipe import Recipe, fingerprint
from mixdpo_ray.search.space import with_settings
from mixdpo_ray.storage import join


@dataclass(frozen=True)
class Shared:
    """What all trials have in common: made once, before the first of them."""

    recipe: Recipe  # with absolute paths, and the workers that a trial gets
    folder: str  # of the study
    tables: Mapping[str, str]  # fingerprint of an order -> folder of the prepared table
    reference: str | None
    watcher: Any  # the study's board

    def rung_folder(self, trial: str, budget: int) -> str:
        return join(self.folder, trial, f"rung-{budget}")


def run_trial(config: dict[str, Any], shared: Shared) -> None:
    """What cannot succeed is reported; what may succeed at another try is raised, and Tune tries again."""
    trial = config["trial"]
    try:
        for budget in shared.recipe.tune.early_stopping.budgets:
            tune.report(train_rung(shared, trial, budget))
    except WorkersError as error:
        _note(shared, trial, str(error))
        raise
    except MixDPOError as error:
        tune.report({"failure": str(error)})
    except Exception as error:
        _note(shared, trial, f"{type(error).__name__}: {error}")
        raise


def train_rung(shared: Shared, trial: Mapping[str, Any], budget: int) -> dict[str, Any]:
    recipe = rung_recipe(shared.recipe, trial["settings"], budget)
    folder = shared.rung_folder(trial["folder"], budget)
    summary = finished(folder)
    if summary is None:
        table = PreparedTable.open(shared.tables[fingerprint(recipe.curriculum.order_identity)])
        summary = _train(shared, trial["number"], folder, recipe, table)
    return {
        "budget": budget,
        "metrics": json.dumps(summary["eval_after"]),
        "rung_seconds": summary["seconds"],
        "pairs": summary["pairs"],
        "cpu_seconds": summary["cpu_seconds"],
    }


def rung_recipe(recipe: Recipe, settings: Mapping[str, Any], budget: int) -> Recipe:
    """The last rung's is the recipe that a winner leaves."""
    recipe = with_settings(recipe, settings)
    thin = recipe.curriculum.thin * (recipe.tune.early_stopping.budgets[-1] // budget)
    return recipe.model_copy(update={"curriculum": recipe.curriculum.model_copy(update={"thin": thin})})


def finished(folder: str) -> dict[str, Any] | None:
    path = join(folder, SUMMARY)
    return json.loads(storage.read_bytes(path)) if storage.exists(path) else None


def _train(shared: Shared, number: int, folder: str, recipe: Recipe, table: PreparedTable) -> dict[str, Any]:
    identity = {**recipe.training_identity(), "prepared": table.manifest.content_digest}
    storage.write_bytes(join(folder, RECIPE), json.dumps({"recipe": recipe.to_dict(), "identity": identity}).encode())
    job = job_in(folder, recipe, table, fingerprint(identity)).alone().with_reference(shared.reference)
    began = time.monotonic()
    summary = fit(recipe.cluster, job, shared.watcher, TrialListener(shared.watcher, number))
    summary["seconds"] = round(time.monotonic() - began, 1)
    storage.write_bytes(join(folder, SUMMARY), json.dumps(summary, indent=2).encode())
    storage.delete(join(folder, "checkpoints"))
    return summary


class TrialListener(Listener):
    """Tells the study's board whose step it was; Ray Train hears of checkpoints as ever."""

    def __init__(self, board: Any, number: int):
        super().__init__(board)
        self.number = number

    def tell(self, kind: str, content: Any) -> None:
        self.board.tell.remote("trial", (self.number, kind, content))


def _note(shared: Shared, trial: Mapping[str, Any], reason: str) -> None:
    """For the driver, whom Tune does not tell why a trial died."""
    storage.write_bytes(join(shared.folder, trial["folder"], FAILURE), " ".join(reason.split()).encode())
