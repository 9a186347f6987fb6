"""What is used of Ray Train and Ray Data that they do not promise, each with its reason, as in ray_internals.py."""

from __future__ import annotations

from typing import Any

from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

# Each starts an actor, which imports for two seconds of CPU. No data set is passed. The cleaner asks Ray's dashboard
# once a second whether its controller lives, and a Ray of this machine alone has none; the run's actor does without
LEFT_OUT = (DatasetsCallback, PlacementGroupCleanerCallback)


class WorkersTrainer(TorchTrainer):  # type: ignore[misc]
    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, LEFT_OUT)]


def found_no_machines(failure: object) -> bool:
    """Whether the workers could not even be started; the public error holds this one, and no name for it."""
    return isinstance(failure, WorkerGroupStartupTimeoutError)


def start_autoscaling_coordinator() -> None:
    """Each controller asks this actor for room before it starts workers: let it be there by then, not begin then."""
    get_or_create_autoscaling_coordinator()
