"""The shipped clusters are what Ray's own loader and schema accept, and keep what the README promises of them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from ray.autoscaler._private.providers import _NODE_PROVIDERS
from ray.autoscaler._private.util import prepare_config, validate_config

from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe

ROOT = Path(__file__).parents[2]
FILES = ("cluster.yaml", "jobs/clusters/gcp.yaml", "jobs/clusters/on-premise.yaml")
CLOUDS = FILES[:2]
GPUS_OF_AWS = {"g6e.12xlarge": (48, 4)}  # CPUs, GPUs: Ray asks AWS itself
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def content(file: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    return loaded


@pytest.mark.parametrize("file", FILES)
def test_ray_s_loader_and_schema_accept_it(file: str) -> None:
    config = prepare_config(content(file))
    validate_config(config)
    assert config["provider"]["type"] in _NODE_PROVIDERS
    assert config["head_node_type"] in config["available_node_types"]


@pytest.mark.parametrize("file", FILES)
def test_nothing_of_ray_s_defaults_opens_the_dashboard(file: str) -> None:
    """Ray's own files for AWS and GCP let it listen everywhere, where a file does not say otherwise."""
    config = prepare_config(content(file))
    starts = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    (start,) = starts
    assert {"--head", "--dashboard-host=127.0.0.1", "--disable-usage-stats"} <= set(start.split())
    assert "0.0.0.0" not in str({**config, "provider": {}})


@pytest.mark.parametrize("file", FILES)
def test_jobs_need_the_token_which_only_its_owner_can_read(file: str) -> None:
    config = content(file)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["setup_commands"][0].split(" #")[0] == "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token"
    on_every_machine = [*config["setup_commands"], *config.get("docker", {}).get("run_options", [])]
    assert any("RAY_AUTH_MODE=token" in line for line in on_every_machine)
    assert not re.search("aws_(access|secret)|RAY_AUTH_TOKEN", (ROOT / file).read_text(), flags=re.IGNORECASE)


@pytest.mark.parametrize("file", FILES)
def test_machines_get_the_dependencies_of_pyproject(file: str) -> None:
    """By reading them there, so that no list can fall behind."""
    config = content(file)
    place = "~/mixdpo_ray-env.toml"
    assert config["file_mounts"][place] == "pyproject.toml"
    (install,) = (line for line in config["setup_commands"] if "install" in line)
    program = re.search(r"python -c '(.*?)'", install)
    assert program
    assert 'open("mixdpo_ray-env.toml", "rb")' in program[1]


def test_the_program_that_reads_the_dependencies_prints_them(tmp_path: Path) -> None:
    (tmp_path / "mixdpo_ray-env.toml").write_text((ROOT / "pyproject.toml").read_text())
    (program,) = {text for file in FILES for text in re.findall(r"python -c '(.*?)'", (ROOT / file).read_text())}
    command = [sys.executable, "-c", program]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == PROJECT["dependencies"]


@pytest.mark.parametrize("file", CLOUDS)
def test_the_image_has_the_ray_and_the_python_that_were_tested(file: str) -> None:
    image = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d)(\d+)-gpu", content(file)["docker"]["image"])
    assert image
    ray, python = image[1], f"{image[2]}.{image[3]}"
    (needed,) = (Requirement(line) for line in PROJECT["dependencies"] if line.startswith("ray["))
    assert Version(ray) in needed.specifier
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(python)


@pytest.mark.parametrize("file", CLOUDS)
def test_gpu_machines_come_and_go_and_spot_is_tried_first(file: str) -> None:
    types = content(file)["available_node_types"]
    spot, fallback = types["spot"], types["on-demand"]
    assert (spot["min_workers"], fallback["min_workers"]) == (0, 0)
    assert spot["priority"] > fallback["priority"]
    assert "spot" in str(spot["node_config"]).lower()
    assert "spot" not in str([fallback, types["head"]]).lower()


@pytest.mark.parametrize("file", CLOUDS)
def test_the_machines_hold_the_8b_recipe(file: str) -> None:
    """Its workers and a free CPU for each of them to read through."""
    recipe: Recipe = load_recipe(str(ROOT / "jobs/recipes/llama3-8b-ultrafeedback.yaml"))
    config = content(file)
    spot = config["available_node_types"]["spot"]
    told = spot["resources"]
    cpus, gpus = (told["CPU"], told["GPU"]) if told else GPUS_OF_AWS[spot["node_config"]["InstanceType"]]
    machines = min(config["max_workers"], spot["max_workers"])
    assert gpus * machines >= recipe.cluster.most_workers
    needed = -(-recipe.cluster.most_workers // gpus)
    assert cpus * needed >= recipe.cluster.cpus_for(recipe.cluster.most_workers)
