"""jobs/clusters/Dockerfile by its lines: nobody builds it here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.deploy.test_cluster_yaml import PROJECT

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "jobs" / "clusters" / "Dockerfile").read_text().splitlines()
STEPS = [line.split(maxsplit=1) for line in LINES if line and not line.startswith("#")]


def of(instruction: str) -> list[str]:
    return [rest for word, rest in STEPS if word == instruction]


def test_the_base_is_pinned_to_the_tested_ray_and_a_python_that_the_project_takes() -> None:
    (base,) = of("FROM")
    found = re.fullmatch(r"rayproject/ray:(\d+\.\d+\.\d+)-py(\d)(\d+)-gpu", base)
    assert found is not None
    (ray,) = (Requirement(line) for line in PROJECT["dependencies"] if line.startswith("ray["))
    assert Version(found[1]) in ray.specifier
    assert Version(f"{found[2]}.{found[3]}") in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_it_runs_as_nobody_special_and_holds_nothing_secret() -> None:
    assert of("USER") == ["ray"]
    assert {word for word, _ in STEPS} == {"FROM", "USER", "WORKDIR", "COPY", "RUN"}
    assert not re.search("token|password|secret|sudo", "\n".join(rest for _, rest in STEPS), flags=re.IGNORECASE)


def test_it_installs_what_the_project_says_and_what_reads_a_bucket() -> None:
    (copied,), (run,) = of("COPY"), of("RUN")
    assert copied.split() == ["--chown=ray", "pyproject.toml", "."]
    listing, install = run.split(" > requirements.txt && ")
    listing = listing.replace("python", sys.executable, 1)
    told = subprocess.run(["bash", "-c", listing], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [*PROJECT["dependencies"], "boto3", "smart_open[s3]"]
    assert install == "pip install --no-cache-dir --requirement requirements.txt"


def test_the_manifest_names_the_tag_that_the_image_is_built_under() -> None:
    (tag,) = re.findall(r"--tag (\S+)", "\n".join(LINES))
    assert f"image: &image {tag}" in (ROOT / "jobs" / "rayjob.yaml").read_text()
