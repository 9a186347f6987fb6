"""What `ray job submit --working-dir .` sends to the cluster: by Ray's own rules, without sending or writing anything.

Ray walks the folder, leaves out what .gitignore and .rayignore of any folder name (and .git, .venv, venv, __pycache__
by default), and stores the rest uncompressed in one zip file, which is larger than its files by their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mixdpo_ray.cluster.ray_internals import uploaded_files


@dataclass(frozen=True)
class Upload:
    files: int
    bytes: int
    largest: tuple[tuple[str, int], ...]  # (path inside the folder, bytes), the largest first


def measure_upload(folder: Path, largest: int = 3) -> Upload:
    sizes = dict(uploaded_files(folder))
    first = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:largest]
    return Upload(len(sizes), sum(sizes.values()), tuple(first))
