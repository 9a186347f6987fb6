"""How a recipe names trackers, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.errors import RecipeError
from mixdpo_ray.recipe.file import describe_settings, load_recipe
from mixdpo_ray.tracking.settings import MlflowSettings, TensorBoardSettings, WandbSettings

PLAYGROUND = str(Path(__file__).parents[2] / "jobs" / "recipes" / "playground.yaml")


def told(*overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(PLAYGROUND, overrides)
    return str(caught.value)


def test_trackers_are_named_with_their_settings_or_by_their_names_alone() -> None:
    full = load_recipe(PLAYGROUND, ["output.trackers={wandb: {project: mine, offline: true}, tensorboard: {}}"])
    assert full.output.trackers == {
        "wandb": WandbSettings(project="mine", offline=True),
        "tensorboard": TensorBoardSettings(),
    }
    assert load_recipe(PLAYGROUND, ["output.trackers=[mlflow]"]).output.trackers == {"mlflow": MlflowSettings()}
    assert load_recipe(PLAYGROUND, ["output.trackers.mlflow.experiment=x"]).output.trackers == {
        "mlflow": MlflowSettings(experiment="x")
    }
    assert full.to_dict()["output"]["trackers"]["wandb"]["project"] == "mine"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("output.trackers=[wanb]", "unknown tracker 'wanb'; did you mean wandb?"),
        ("output.trackers=wandb", "write {tracker: {its settings}, ...}, such as {wandb: {project: mine}}"),
        (
            "output.trackers=[{wandb: {project: a}}]",
            "write {tracker: {its settings}, ...}, such as {wandb: {project: mine}}",
        ),
        ("output.trackers={wandb: {projct: a}}", "output.trackers.wandb.projct is unknown; did you mean project?"),
        ("output.trackers={mlflow: {uri: 'http://me:secret@host'}}", "a recipe is no place for a password"),
    ],
)
def test_a_mistake_is_one_line(override: str, said: str) -> None:
    line = told(override)
    assert said in line
    assert "\n" not in line


@pytest.mark.parametrize("tracker", ["{tensorboard: {}}", "{wandb: {offline: true}}"])
def test_a_tracker_that_writes_local_files_needs_a_local_run(tracker: str) -> None:
    assert "writes local files beside the run" in told(f"output.trackers={tracker}", "output.storage_path=s3://bucket")


def test_every_setting_of_trackers_is_described() -> None:
    described = describe_settings()
    for name in ("output.trackers.wandb.offline", "output.trackers.mlflow.uri", "output.trackers.trackio.space"):
        assert f"\n{name} = " in described


def test_a_missing_key_or_address_is_known_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    assert str(WandbSettings().lacks()).startswith("no key for api.wandb.ai: set WANDB_API_KEY")
    netrc.write_text("machine api.wandb.ai login user password 0123\n")
    netrc.chmod(0o600)
    assert WandbSettings().lacks() is None
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert str(WandbSettings().lacks()).startswith("no key for wandb.example.org")
    assert WandbSettings(offline=True).lacks() is None
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert WandbSettings().lacks() is None
    assert str(MlflowSettings().lacks()).startswith("no address: give mlflow.uri")
    assert MlflowSettings(uri="sqlite:///a.db").lacks() is None
