"""What is used of Ray that it does not promise, each with its reason; a test holds that the names exist."""

from __future__ import annotations

from subprocess import Popen
from typing import Any

from ray._private import ray_constants, worker
from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

# Each starts an actor, which imports for two seconds of CPU. No data set is passed. The cleaner asks Ray's dashboard
# once a second whether its controller lives, and a Ray of this machine alone has none; the run's actor does without
LEFT_OUT = (DatasetsCallback, PlacementGroupCleanerCallback)


class WorkersTrainer(TorchTrainer):  # type: ignore[misc]
    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, LEFT_OUT)]


def processes_of_this_ray() -> dict[str, Popen[bytes]]:
    """Return those without which nothing goes on, of a Ray that was started by this process."""
    node = worker.global_worker.node
    named = {
        ray_constants.PROCESS_TYPE_GCS_SERVER: "Ray's head (GCS)",
        ray_constants.PROCESS_TYPE_RAYLET: "Ray's raylet",
    }
    return {name: node.all_processes[kind][0].process for kind, name in named.items() if node.all_processes.get(kind)}


def start_autoscaling_coordinator() -> None:
    """Each controller asks this actor for room before it starts workers: let it be there by then, not begin then."""
    get_or_create_autoscaling_coordinator()
