"""What is used of Ray that it does not promise, each with its reason; a test holds that the names exist."""

from __future__ import annotations

from typing import Any

from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks import DatasetsCallback


class WorkersTrainer(TorchTrainer):  # type: ignore[misc]
    """Without the actor that deals out data sets: none is passed, and it would import for two seconds of CPU."""

    def _create_default_callbacks(self) -> list[Any]:
        return [one for one in super()._create_default_callbacks() if not isinstance(one, DatasetsCallback)]


def start_autoscaling_coordinator() -> None:
    """Each controller asks this actor for room before it starts workers: let it be there by then, not begin then."""
    get_or_create_autoscaling_coordinator()
