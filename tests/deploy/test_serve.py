"""jobs/serve.yaml against Ray's own schema of a deployment, and its model against the fields of LLMConfig."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOYMENT: dict[str, Any] = yaml.safe_load((ROOT / "jobs" / "serve.yaml").read_text())
LOCAL = "127.0.0.1"


def fields(file: str, name: str) -> set[str]:
    """Annotated fields of a class of Ray, read without importing it: ray[serve] and ray[llm] may not be there."""
    spec = find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / file).read_text("utf-8"))
    (found,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        line.target.id for line in found.body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    }


def test_every_key_of_the_deployment_is_a_field_of_rays_schema() -> None:
    (application,) = DEPLOYMENT["applications"]
    assert set(DEPLOYMENT) <= fields("serve/schema.py", "ServeDeploySchema")
    assert set(application) <= fields("serve/schema.py", "ServeApplicationSchema")
    assert set(DEPLOYMENT["http_options"]) <= fields("serve/schema.py", "HTTPOptionsSchema")
    assert application["import_path"] == "ray.serve.llm:build_openai_app"


def test_every_key_of_the_model_is_a_field_of_its_configuration() -> None:
    configs = "llm/_internal/serve/core/configs/llm_config.py"
    (model,) = DEPLOYMENT["applications"][0]["args"]["llm_configs"]
    assert set(model) <= fields(configs, "LLMConfig")
    assert set(model["model_loading_config"]) <= fields(configs, "ModelLoadingConfig")
    assert set(model["deployment_config"]) <= fields("serve/schema.py", "DeploymentSchema")
    assert set(model["deployment_config"]["autoscaling_config"]) <= fields("serve/config.py", "AutoscalingConfig")


def test_nobody_outside_the_machine_reaches_it() -> None:
    assert DEPLOYMENT["http_options"]["host"] == LOCAL


def test_the_whole_schema_accepts_it() -> None:
    pytest.importorskip("grpc_reflection", reason="ray[serve] is not installed")
    from ray.serve.schema import ServeDeploySchema

    read = ServeDeploySchema.model_validate(DEPLOYMENT)
    assert read.http_options.host == LOCAL
