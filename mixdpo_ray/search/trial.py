"""A trial of a search, inside Ray Tune: for each rung a whole curriculum, thinned, trained by a standing worker group.

Stopping early by the beginning of a curriculum would compare models that have seen easy pairs only. So every rung
starts anew and trains every n-th window of each stage, with its schedule fitted to that length; the last one is
the recipe itself. A rung that has a summary is never trained again, and one that was cut continues at its checkpoint.

Tune keeps the process of a trial that has ended well for the next one, and with it the workers: one group a seat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import tune

from mixdpo_ray import storage
from mixdpo_ray.cluster.events import Warned
from mixdpo_ray.cluster.queued_job import QueuedJob
from mixdpo_ray.cluster.run_record import RunRecord, identity_of
from mixdpo_ray.cluster.trial_slots import DRIVER_CPUS
from mixdpo_ray.cluster.worker_group import WorkerGroup
from mixdpo_ray.errors import MixDPOError, WorkersError
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.runs.job import job_in
from mixdpo_ray.search.space import with_settings
from mixdpo_ray.search.trial_judge import JudgeStoppedError, TrialJudge
from mixdpo_ray.storage import join
from mixdpo_ray.tables.prepared_table import PreparedTable


@dataclass(frozen=True)
class Shared:
    """What all trials have in common: made once, before the first of them."""

    recipe: Recipe  # with absolute paths, and the workers that a trial gets
    folder: str  # of the study
    tables: Mapping[str, str]  # fingerprint of an order -> folder of the prepared table
    reference: str | None
    watcher: Any  # the study's actor
    judge: TrialJudge | None = None  # where trials are compared by what they write

    def rung_folder(self, trial: str, budget: int) -> str:
        return join(self.folder, trial, f"rung-{budget}")


class Trial(tune.Trainable):  # type: ignore[misc]
    """One step is one rung. The scheduler stops it after the last one, or before."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """The resources of this process, which waits for its workers."""
        return tune.PlacementGroupFactory([{"CPU": DRIVER_CPUS}])

    def setup(self, config: dict[str, Any], shared: Shared) -> None:
        self.shared = shared
        self.group = WorkerGroup(shared.recipe.cluster, RunRecord(shared.folder).scratch, shared.watcher)
        self.reset_config(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """Become another trial, with the workers of the one before."""
        self.trial: dict[str, Any] = config["trial"]
        self.budgets = iter(self.shared.recipe.tune.early_stopping.budgets)
        return True

    def step(self) -> dict[str, Any]:
        """What cannot succeed is reported; what may succeed at another try is raised, and Tune tries again."""
        try:
            return self.train_rung(next(self.budgets))
        except WorkersError as error:
            self._note(str(error))
            if retries := self.shared.recipe.tune.max_failures:
                goes_on = f"it continues where it was, up to {retries} times (tune.max_failures)"
                self.shared.watcher.tell.remote(Warned(f"{error}; {goes_on}", job=self.trial["number"]))
            raise
        except JudgeStoppedError as error:
            return {"stopped": str(error), "done": True}
        except MixDPOError as error:
            return {"failure": str(error), "done": True}
        except Exception as error:
            self._note(f"{type(error).__name__}: {error}")
            raise

    def cleanup(self) -> None:
        self.group.close()

    def train_rung(self, budget: int) -> dict[str, Any]:
        shared = self.shared
        recipe = rung_recipe(shared.recipe, self.trial["settings"], budget)
        folder = shared.rung_folder(self.trial["folder"], budget)
        summary = RunRecord(folder).summary()
        if summary is None:
            table = PreparedTable.open(shared.tables[fingerprint(recipe.curriculum.order_identity)])
            summary = self._train(folder, recipe, table, budget)
        if shared.judge is not None:
            summary = shared.judge.add_to(RunRecord(folder), summary)
        return {
            "budget": budget,
            "metrics": json.dumps(summary["eval_after"]),
            "rung_seconds": summary["seconds"],
            "pairs": summary["pairs"],
            "cpu_seconds": summary["cpu_seconds"],
        }

    def _train(self, folder: str, recipe: Recipe, table: PreparedTable, budget: int) -> dict[str, Any]:
        record, identity = RunRecord(folder), identity_of(recipe, table.manifest.content_digest)
        record.write_recipe(recipe, identity)
        job, judge = job_in(folder, recipe, table, fingerprint(identity)), self.shared.judge
        job = job.in_group(
            recipe.output.name, *shown_in_trackers(self.trial, budget, recipe.tune.early_stopping.budgets[-1])
        )
        job = (job if judge else job.without_export()).with_reference(self.shared.reference)
        queued = QueuedJob(job, self.trial["number"], self.done_with_model(folder))
        summary = {**self.group.train(queued), "model": None}
        storage.delete(record.model)
        record.write_summary(summary)
        storage.delete(record.checkpoints)
        return summary

    def done_with_model(self, folder: str) -> Callable[[str], dict[str, float]] | None:
        """What a worker does with the model that it has exported."""
        judge = self.shared.judge
        return judge.judging.prompts.left_by(folder) if judge else None

    def _note(self, reason: str) -> None:
        """Note a failure for the driver, whom Tune does not tell why a trial died."""
        RunRecord(join(self.shared.folder, self.trial["folder"])).write_failure(reason)


def rung_recipe(recipe: Recipe, settings: Mapping[str, Any], budget: int) -> Recipe:
    """The last rung's is the recipe that a winner leaves."""
    recipe = with_settings(recipe, settings)
    thin = recipe.curriculum.thin * (recipe.tune.early_stopping.budgets[-1] // budget)
    return recipe.model_copy(update={"curriculum": recipe.curriculum.model_copy(update={"thin": thin})})


def shown_in_trackers(trial: Mapping[str, Any], budget: int, last: int) -> tuple[str, dict[str, Any]]:
    """The name and the labels of a trial's rung; the last one is the trial itself."""
    rung = {} if budget == last else {"rung": budget}
    name = f"trial {trial['number']}{f', rung {budget}' if rung else ''}"
    return name, {"trial": trial["number"], **rung, **trial["settings"]}
