"""Settings of trackers: where runs go. Keys and tokens are read by each library from its own variables and files."""

from __future__ import annotations

import netrc
import os
import re
from collections.abc import Mapping
from typing import ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from mixdpo_ray.settings import Settings

OURS = "mixdpo_ray"  # project or experiment where none is named


class TrackerSettings(Settings):
    package: ClassVar[str]  # that it is imported from
    extra: ClassVar[str]  # of this package, which brings it
    local_files: ClassVar[bool] = False  # in the run's folder, which must then be one

    @property
    def needs_local_run(self) -> bool:
        return self.local_files

    def lacks(self) -> str | None:
        """What this process's environment lacks to reach the tracker, and what to do; nothing where it looks well."""
        return None


class WandbSettings(TrackerSettings):
    """Weights & Biases, at wandb.ai or at WANDB_BASE_URL."""

    package, extra = "wandb", "wandb"
    project: str | None = Field(None, description="Project; by default WANDB_PROJECT, or mixdpo_ray")
    entity: str | None = Field(None, description="Team or user; by default WANDB_ENTITY, or your own")
    offline: bool = Field(False, description="Write files beside the run, which `wandb sync` sends later; needs no key")

    @property
    def needs_local_run(self) -> bool:
        return self.is_offline

    @property
    def is_offline(self) -> bool:
        return self.offline or os.environ.get("WANDB_MODE", "") in ("offline", "dryrun")

    def lacks(self) -> str | None:
        if self.is_offline or os.environ.get("WANDB_MODE", "") == "disabled" or os.environ.get("WANDB_API_KEY"):
            return None
        host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
        if host in _hosts_with_passwords() or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
            return None
        return f"no key for {host}: set WANDB_API_KEY, run `wandb login`, or give wandb.offline=true"


class MlflowSettings(TrackerSettings):
    """An MLflow server or store."""

    package, extra = "mlflow", "mlflow"
    experiment: str | None = Field(None, description="Experiment; by default MLFLOW_EXPERIMENT_NAME, or mixdpo_ray")
    uri: str | None = Field(
        None, description="http://HOST:5000, or sqlite:////FOLDER/mlflow.db; by default MLFLOW_TRACKING_URI"
    )

    @field_validator("uri")
    @classmethod
    def _holds_no_password(cls, uri: str | None) -> str | None:
        if uri is not None and re.search(r"://[^/]*@", uri):
            raise ValueError("a recipe is no place for a password: set MLFLOW_TRACKING_USERNAME and _PASSWORD")
        return uri

    def lacks(self) -> str | None:
        if self.uri or os.environ.get("MLFLOW_TRACKING_URI"):
            return None
        return (
            "no address: give mlflow.uri, such as http://HOST:5000 or sqlite:////FOLDER/mlflow.db, or set "
            "MLFLOW_TRACKING_URI"
        )


class TrackioSettings(TrackerSettings):
    """Trackio: files of its own under TRACKIO_DIR, or a Space on the Hugging Face Hub."""

    package, extra = "trackio", "trackio"
    project: str = Field(OURS, description="Project")
    space: str | None = Field(None, description="Space on the Hub, as USER/NAME; by default TRACKIO_SPACE_ID, or none")
    private: bool = Field(True, description="Whether a Space that is made for it is private")


class TensorBoardSettings(TrackerSettings):
    """Event files beside the metrics."""

    package, extra, local_files = "tensorboard", "tensorboard", True


TRACKERS: Mapping[str, type[TrackerSettings]] = {
    "wandb": WandbSettings,
    "mlflow": MlflowSettings,
    "trackio": TrackioSettings,
    "tensorboard": TensorBoardSettings,
}


def lacking_here(trackers: Mapping[str, TrackerSettings]) -> str | None:
    """What this process lacks to reach the first of them that it cannot reach."""
    told = ((name, settings.lacks()) for name, settings in trackers.items())
    return next((f"output.trackers.{name}: {lacking}" for name, lacking in told if lacking), None)


def _hosts_with_passwords() -> set[str]:
    """Hosts that this user's netrc knows a password of."""
    try:
        return set(netrc.netrc(os.environ.get("NETRC")).hosts)
    except (OSError, netrc.NetrcParseError):
        return set()
