"""What a GPU machine without a network lacks, and in which form it travels there.

The image has Python 3.12, torch, an older transformers, accelerate, peft, pyarrow, pandas and what they need. Beside it
go wheels, which are unpacked as they are, and ray, whose wheel of 79 MB is too large: it loses what no job here uses
and is packed again. Everything lies in one folder, which git ignores.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".gpu-bundle"
LIMIT = 64 << 20  # bytes that may travel
PYTHON = "3.12"
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)] + ["manylinux2014_x86_64"]

# Of the project's own requirements, in the ranges of pyproject.toml; the image has the others.
OURS = ("ray", "deepspeed", "transformers", "trl", "datasets", "optuna", "pydantic")
# What these need, and kernels to compare with.
THEIRS = (
    "alembic", "annotated-types", "colorlog", "dill", "hjson", "jsonschema", "jsonschema-specifications",
    "liger-kernel", "mako", "msgpack", "multiprocess", "referencing", "rpds-py", "sqlalchemy", "typing-inspection",
)  # fmt: skip
# Names that the image has, as far as anything above asks for them.
IMAGE = frozenset({
    "accelerate", "attrs", "click", "einops", "filelock", "fsspec", "grpcio", "huggingface-hub", "jinja2", "markupsafe",
    "ninja", "numpy", "packaging", "pandas", "peft", "protobuf", "psutil", "py-cpuinfo", "pyarrow", "pyyaml",
    "regex", "requests", "safetensors", "tokenizers", "torch", "tqdm", "transformers", "triton", "typer",
    "typing-extensions", "xxhash",
})  # fmt: skip
# Of ray's wheel: Java, reinforcement learning, the dashboard's pages, tests; none is imported by a training run.
PRUNED = ("ray/jars/", "ray/rllib/", "ray/dashboard/client/", "ray/serve/tests/")
RAY_PACKED = "ray.tar.xz"


def wanted() -> list[str]:
    """Requirements of everything that travels, pydantic-core left out: its version follows from pydantic's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    ranges = {canonicalize_name(Requirement(line).name): Requirement(line) for group in groups for line in group}
    return [f"{name}{ranges[canonicalize_name(name)].specifier}" for name in OURS] + list(THEIRS)


def needed_by(metadata: str) -> list[Requirement]:
    """What a package on Linux and PYTHON must have, extras left out."""
    lines = HeaderParser().parsestr(metadata).get_all("Requires-Dist") or []
    surroundings = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "extra": ""}
    requirements = [Requirement(line) for line in lines]
    return [one for one in requirements if one.marker is None or one.marker.evaluate(surroundings)]


def metadata_of(wheel: Path) -> str:
    with ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        return archive.read(name).decode()


def lacking(packages: Iterable[str]) -> list[str]:
    """Whatever these packages' metadata ask for and neither they nor the image have."""
    texts = list(packages)
    there = {canonicalize_name(HeaderParser().parsestr(text)["Name"]) for text in texts} | IMAGE
    asked = {canonicalize_name(one.name) for text in texts for one in needed_by(text)}
    return sorted(asked - there)
