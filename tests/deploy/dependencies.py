"""A Python environment with what the project needs, and without the project: what a cluster's machines have."""

from __future__ import annotations

import sysconfig
import venv
from pathlib import Path

RAY = """#!{python}
import sys
from ray.scripts.scripts import main

sys.exit(main())
"""


def dependencies_only(folder: Path) -> Path:
    """It borrows the packages of the running interpreter as a plain folder, in which the line that finds an editable
    install is not followed."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    ray = folder / "bin" / "ray"
    ray.write_text(RAY.format(python=folder / "bin" / "python"))
    ray.chmod(0o755)
    return folder
