"""Unpack the bundle into a folder for PYTHONPATH: no index, no pip, nothing but Python itself.

    python3 tests/measure/install_bundle.py FOLDER      from .gpu-bundle/, which make_bundle.py made

Seconds go into ray. Files lie where pip --target would put them, so that importlib.metadata finds every package; what
a wheel brings for other places (scripts, headers, data) stays behind.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile


def install(bundle: Path, folder: Path) -> list[str]:
    """The names of what was unpacked."""
    packages = sorted([*bundle.glob("*.whl"), *bundle.glob("*.tar.xz")])
    if not packages:
        sys.exit(f"{bundle} holds no packages: run python -m tests.measure.make_bundle where there is a network")
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages:
        (unpack_wheel if package.suffix == ".whl" else unpack_tar)(package, folder)
    return [package.name for package in packages]


def unpack_wheel(wheel: Path, folder: Path) -> None:
    with ZipFile(wheel) as archive:
        for entry in archive.infolist():
            top, _, rest = entry.filename.partition("/")
            if not top.endswith(".data"):
                archive.extract(entry, folder)
            elif rest.startswith(("purelib/", "platlib/")) and not entry.is_dir():
                target = folder / rest.partition("/")[2]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(entry))


def unpack_tar(package: Path, folder: Path) -> None:
    """Modes are kept: ray starts programs that lie in it."""
    with tarfile.open(package) as packed:
        packed.extractall(folder, filter="data")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="made if it is not there; put it on PYTHONPATH")
    parser.add_argument("--bundle", type=Path, default=Path(__file__).parents[2] / ".gpu-bundle")
    arguments = parser.parse_args()
    print("\n".join(install(arguments.bundle, arguments.folder)))


if __name__ == "__main__":
    main()
