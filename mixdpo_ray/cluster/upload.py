"""What `ray job submit --working-dir .` sends to the cluster: by Ray's own rules, without sending or writing anything.

Ray walks the folder, leaves out what .gitignore and .rayignore of any folder name (and .git, .venv, venv, __pycache__
by default), and stores the rest uncompressed in one zip file. A test compares these numbers with a package made by Ray.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ray._private import ray_constants
from ray._private.runtime_env import packaging

# The Jobs API takes no larger body, and the cluster's store no larger value.
LIMIT = min(ray_constants.DASHBOARD_CLIENT_MAX_SIZE, packaging.GCS_STORAGE_MAX_SIZE)
LOCAL_HEADER, CENTRAL_HEADER, END = 30, 46, 22  # bytes of a zip file beside names and contents


@dataclass(frozen=True)
class Upload:
    files: int
    bytes: int  # of the zip file
    largest: tuple[tuple[str, int], ...]  # (path inside the folder, bytes), the largest first


def measure_upload(folder: Path, largest: int = 3) -> Upload:
    root = folder.absolute()
    sizes: dict[str, int] = {}
    packed = 0

    def visit(path: Path) -> None:
        nonlocal packed
        name = f"{path.relative_to(root)}"
        if path.is_file():
            sizes[name] = path.stat().st_size
            packed += sizes[name] + _headers(name)
        elif path.is_dir() and next(path.iterdir(), None) is None:
            packed += _headers(f"{name}/")

    excludes = [packaging._get_excludes(root, ray_constants.get_runtime_env_default_excludes())]
    gitignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    packaging._dir_travel(root, excludes, visit, include_gitignore=gitignore, logger=logging.getLogger(__name__))
    first = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:largest]
    return Upload(len(sizes), packed + END, tuple(first))


def _headers(name: str) -> int:
    """Each name stands before its content and again at the end of the file."""
    return LOCAL_HEADER + CENTRAL_HEADER + 2 * len(name.encode())
