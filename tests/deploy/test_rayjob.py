"""jobs/rayjob.yaml against KubeRay's v1 RayJob.

This is the structural check: no small package on PyPI or npm carries the schema, so FIELDS states, for the fields that
are used and for no others, what the API has them be (KubeRay 1.5.1; of pods, Kubernetes core/v1).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from mixdpo_ray.recipe.file import load_recipe
from tests.deploy.test_cluster_yaml import PROJECT

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "jobs" / "rayjob.yaml").read_text()
JOB: dict[str, Any] = yaml.safe_load(TEXT)

Texts, Count = dict[str, str], int  # Count: an integer that is not negative
QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]i?)?")
QUANTITIES = {"cpu": QUANTITY, "memory": QUANTITY, "nvidia.com/gpu": re.compile(r"\d+")}
POD = {
    "spec": {
        "serviceAccountName": str,
        "containers": [
            {
                "name": str,
                "image": str,
                "env": [{"name": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str, "optional": bool}}}],
                "resources": {"requests": QUANTITIES, "limits": QUANTITIES},
                "volumeMounts": [{"name": str, "mountPath": re.compile(r"/.*")}],
            }
        ],
        "volumes": [{"name": str, "emptyDir": {"medium": re.compile("|Memory"), "sizeLimit": QUANTITY}}],
        "tolerations": [
            {
                "key": str,
                "operator": re.compile("Exists|Equal"),
                "effect": re.compile("NoSchedule|PreferNoSchedule|NoExecute"),
            }
        ],
    }
}
FIELDS = {
    "apiVersion": re.compile(r"ray\.io/v1"),
    "kind": re.compile("RayJob"),
    "metadata": {
        "name": re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?"),  # names of pods are made from it
        "labels": Texts,
    },
    "spec": {
        "suspend": bool,
        "entrypoint": str,
        "runtimeEnvYAML": str,
        "submissionMode": re.compile("K8sJobMode|HTTPMode|InteractiveMode|SidecarMode"),
        "backoffLimit": Count,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": Count,
        "rayClusterSpec": {
            "rayVersion": str,
            "authOptions": {"mode": re.compile("token|disabled")},
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {"idleTimeoutSeconds": Count},
            "headGroupSpec": {"rayStartParams": Texts, "template": POD},
            "workerGroupSpecs": [
                {
                    "groupName": str,
                    "replicas": Count,
                    "minReplicas": Count,
                    "maxReplicas": Count,
                    "rayStartParams": Texts,
                    "template": POD,
                }
            ],
        },
    },
}
REQUIRED = (  # by the API; everything else has a default
    "spec.rayClusterSpec.headGroupSpec.template.spec.containers",
    "spec.rayClusterSpec.workerGroupSpecs.0.groupName",
    "spec.rayClusterSpec.workerGroupSpecs.0.minReplicas",
    "spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas",
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers",
)


def wrong(value: Any, kind: Any, where: str = "") -> list[str]:
    """The dotted names of fields that the API does not have, or not with such a value."""
    if kind is Texts:
        return [f"{where}.{key}" for key, text in _mapping(value).items() if not isinstance(text, str)]
    if isinstance(kind, dict):
        if not isinstance(value, dict):
            return [where]
        known = [line for key in value if key in kind for line in wrong(value[key], kind[key], f"{where}.{key}")]
        return [*known, *(f"{where}.{key}" for key in value if key not in kind)]
    if isinstance(kind, list):
        items = value if isinstance(value, list) else [None]
        return [line for number, item in enumerate(items) for line in wrong(item, kind[0], f"{where}.{number}")]
    if isinstance(kind, re.Pattern):
        return [] if isinstance(value, str) and kind.fullmatch(value) else [where]
    if kind is Count:
        return [] if type(value) is int and value >= 0 else [where]
    return [] if isinstance(value, kind) else [where]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"": None}


def at(path: str) -> Any:
    found: Any = JOB
    for key in path.split("."):
        found = found[int(key)] if isinstance(found, list) else found[key]
    return found


def test_every_field_is_one_of_the_api_and_has_its_type() -> None:
    assert wrong(JOB, FIELDS) == []


@pytest.mark.parametrize("path", REQUIRED)
def test_what_the_api_demands_is_there(path: str) -> None:
    assert at(path) is not None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.entryPoint", "python jobs/train.py"),
        ("spec.runtimeEnvYAML", {"working_dir": "s3://a/b.zip"}),
        ("spec.backoffLimit", "2"),
        ("spec.shutdownAfterJobFinishes", 1),
        ("spec.submissionMode", "JobMode"),
        ("spec.rayClusterSpec.authOptions", {"mode": "tokens"}),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams", {"num-gpus": 0}),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplicas", -1),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.resources.limits", {"memory": "320 GB"}),
        ("metadata.name", "MixDPO"),
    ],
)
def test_a_mistake_is_found(path: str, value: object) -> None:
    job = yaml.safe_load(TEXT)
    *parents, last = path.split(".")
    place: Any = job
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    place[last] = value
    assert any(line.startswith(f".{path}") for line in wrong(job, FIELDS)), path


def test_jobs_need_a_token_and_nothing_secret_is_written_here() -> None:
    assert at("spec.rayClusterSpec.authOptions") == {"mode": "token"}
    assert not re.search("secret_|_key|password|RAY_AUTH_TOKEN", TEXT, flags=re.IGNORECASE)
    assert "0.0.0.0" not in TEXT


def test_ray_is_the_tested_one_and_known_to_the_operator_s_tokens() -> None:
    (needed,) = (Requirement(line) for line in PROJECT["dependencies"] if line.startswith("ray["))
    version = at("spec.rayClusterSpec.rayVersion")
    assert Version(version) in needed.specifier
    assert Version(version) >= Version("2.52")
    assert f"FROM rayproject/ray:{version}-py311-gpu" in (ROOT / "jobs" / "clusters" / "Dockerfile").read_text()


def test_the_entrypoint_is_a_recipe_that_the_pods_can_run() -> None:
    python, script, recipe, *overrides = at("spec.entrypoint").split()
    assert (python, (ROOT / script).is_file()) == ("python", True)
    cluster = load_recipe(str(ROOT / recipe), overrides).cluster
    group = at("spec.rayClusterSpec.workerGroupSpecs.0")
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    pods = -(-cluster.most_workers // int(limits["nvidia.com/gpu"]))
    assert pods <= group["maxReplicas"]
    assert pods * int(limits["cpu"]) >= cluster.cpus_for(cluster.most_workers)


def test_the_command_for_kueue_makes_a_job_that_waits_for_all_of_its_pods() -> None:
    """Kueue counts the pods of a job when it admits it, so that it takes none whose cluster grows by itself."""
    guide = (ROOT / "jobs" / "clusters" / "queues.md").read_text()
    (command,) = re.findall(r"^(sed -e .*?) \| kubectl apply -f -$", guide, flags=re.MULTILINE | re.DOTALL)
    made = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    job = yaml.safe_load(made)
    assert wrong(job, FIELDS) == []
    assert list(job["metadata"]["labels"]) == ["kueue.x-k8s.io/queue-name"]
    assert (job["spec"]["suspend"], job["spec"]["shutdownAfterJobFinishes"]) == (True, True)
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is False
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"] == 2
    same = {**job["spec"], "rayClusterSpec": None}
    assert {**same, "suspend": None} == {**JOB["spec"], "rayClusterSpec": None, "suspend": None}
