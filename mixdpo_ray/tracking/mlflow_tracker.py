"""A training as a run of MLflow, found by a tag, which holds the training's own id.

The store is asked how far the run has come. Metrics come in one request for each line, the step's own number first.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from mixdpo_ray.tracking.outbox import Ending, TrackedLine
from mixdpo_ray.tracking.settings import OURS, MlflowSettings
from mixdpo_ray.tracking.tracked import Tracked

# MLflow reads these when it is asked; its own patience is minutes, in which nothing is told and nothing ends
_BY_DEFAULT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_ID = "mixdpo_ray.id"
_GROUP = "mixdpo_ray.group"
_MOST_PARAMS, _LONGEST_PARAM = 100, 500  # of a request; of a value in all stores
_NOT_IN_A_NAME = re.compile(r"[^\w\-. /:]")  # the names of arms are a person's words, and MLflow refuses commas
_DONE = {"step": "steps_taken", "eval": "eval_steps_taken"}  # metrics that tell what is there


class MlflowTracker:
    def __init__(self, settings: MlflowSettings, tracked: Tracked, identifier: str):
        for name, value in _BY_DEFAULT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=settings.uri)
        experiment = _experiment(self.client, settings.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or OURS)
        found = self.client.search_runs([experiment], f"tags.`{_ID}` = '{identifier}'", max_results=1)
        self.run = found[0].info.run_id if found else self._begin(experiment, tracked, identifier)
        if found:
            self.client.update_run(self.run, status="RUNNING")
        self._taken = {kind: self._last(name) for kind, name in _DONE.items()}

    def has(self, line: TrackedLine) -> bool:
        return line.done <= self._taken.get(line.kind, -1)

    def log(self, line: TrackedLine) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        numbers = {_DONE[line.kind]: line.done, **line.numbers} if line.kind in _DONE else line.numbers
        self.client.log_batch(self.run, [Metric(name, float(value), now, line.done) for name, value in numbers.items()])

    def end(self, ending: Ending) -> None:
        if ending.summary is not None:
            self.client.log_dict(self.run, dict(ending.summary), "ending.json")
        if ending.picture is not None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "curves.png"
                file.write_bytes(ending.picture())
                self.client.log_artifact(self.run, str(file))
        self.client.set_terminated(self.run, "FINISHED" if ending.summary is not None else "FAILED")

    def _begin(self, experiment: str, tracked: Tracked, identifier: str) -> str:
        from mlflow.entities import Param

        labels = {f"mixdpo_ray.{name}": str(value) for name, value in tracked.labels.items()}
        group = {_GROUP: tracked.group} if tracked.group else {}
        made = self.client.create_run(experiment, run_name=tracked.name, tags={_ID: identifier, **group, **labels})
        known: str = made.info.run_id
        settings = {_NOT_IN_A_NAME.sub("_", name): value for name, value in tracked.settings.items()}
        given = [Param(name, str(value)[:_LONGEST_PARAM]) for name, value in settings.items()]
        for first in range(0, len(given), _MOST_PARAMS):
            self.client.log_batch(known, params=given[first : first + _MOST_PARAMS])
        return known

    def _last(self, metric: str) -> int:
        return max((point.step for point in self.client.get_metric_history(self.run, metric)), default=-1)


def _experiment(client: Any, name: str) -> str:
    """Its id; made where there is none. Trials that begin at the same time make it at the same time."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)
