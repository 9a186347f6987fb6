"""Make the bundle that a GPU machine without a network needs: at most 64 MiB, in a folder that git ignores.

    python -m tests.measure.make_bundle          into .gpu-bundle/

It asks the package index by pip, for Linux on x86-64 and Python 3.12, and builds DeepSpeed's wheel, which nobody
publishes; torch must be installed here for that. `python -m tests.measure.install_bundle` unpacks it there.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from zipfile import ZipFile

from tests.measure.bundle import (
    FOLDER,
    LIMIT,
    PLATFORMS,
    PRUNED,
    PYTHON,
    RAY_PACKED,
    lacking,
    metadata_of,
    needed_by,
    wanted,
)

PRESET: Literal[3] = 3  # of xz; 9 saves another 2 MB and takes minutes


def make(folder: Path) -> int:
    """Bytes of the bundle. The folder is made anew."""
    with tempfile.TemporaryDirectory(prefix="gpu-bundle-") as scratch:
        wheels = Path(scratch)
        built = [name for name in wanted() if name.startswith("deepspeed")]
        pip("wheel", ["--no-deps", "--no-build-isolation", "--wheel-dir", scratch], built)
        download(wheels, [name for name in wanted() if name not in built])
        download(wheels, pinned(metadata_of(one("pydantic", wheels)), "pydantic-core"))
        if missing := lacking(map(metadata_of, sorted(wheels.glob("*.whl")))):
            sys.exit(f"nobody brings {', '.join(missing)}: add them to THEIRS, or to IMAGE if the image has them")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        ray = one("ray", wheels)
        repack(ray, folder / RAY_PACKED)
        ray.unlink()
        for wheel in wheels.glob("*.whl"):
            shutil.move(wheel, folder)
    return sum(file.stat().st_size for file in folder.iterdir())


def download(folder: Path, names: Sequence[str]) -> None:
    target = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON]
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip("download", ["--no-deps", "--dest", str(folder), *target, *platforms], names)


def pip(verb: str, options: Sequence[str], names: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", *options, *names]
    without_operators = {**os.environ, "DS_BUILD_OPS": "0"}  # of DeepSpeed: they are compiled where they are used
    if status := subprocess.run(command, env=without_operators, check=False).returncode:
        sys.exit(f"pip {verb} {' '.join(names)} failed with status {status}")


def one(name: str, folder: Path) -> Path:
    (wheel,) = folder.glob(f"{name}-*.whl")
    return wheel


def pinned(metadata: str, name: str) -> list[str]:
    """The one version of `name` that a package accepts."""
    return [f"{name}{found.specifier}" for found in needed_by(metadata) if found.name.replace("_", "-") == name]


def repack(wheel: Path, target: Path) -> None:
    """The files of a wheel without the PRUNED ones, with their modes, in one stream that compresses well."""
    with ZipFile(wheel) as archive, tarfile.open(target, "w:xz", preset=PRESET) as packed:
        for entry in archive.infolist():
            if entry.is_dir() or entry.filename.startswith(PRUNED):
                continue
            header = tarfile.TarInfo(entry.filename)
            header.size, header.mode = entry.file_size, (entry.external_attr >> 16) & 0o777 or 0o644
            packed.addfile(header, io.BytesIO(archive.read(entry)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    size = make(folder)
    for file in sorted(folder.iterdir(), key=lambda file: -file.stat().st_size):
        print(f"{file.stat().st_size / 2**20:8.2f} MiB  {file.name}")
    print(f"{size / 2**20:8.2f} MiB  in {folder}")
    if size > LIMIT:
        sys.exit(f"more than {LIMIT >> 20} MiB: leave something out (tests/measure/bundle.py)")


if __name__ == "__main__":
    main()
