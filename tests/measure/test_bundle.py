"""What travels to a machine without a network is small, whole, and unpacked by nothing but Python."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest

from tests.measure import install_bundle
from tests.measure.bundle import FOLDER, RAY_PACKED, ROOT, lacking, metadata_of, needed_by, wanted
from tests.measure.make_bundle import pinned, repack

METADATA = """Metadata-Version: 2.4
Name: pydantic
Requires-Dist: pydantic-core==2.50.5
Requires-Dist: numpy
Requires-Dist: tomli; python_version < "3.11"
Requires-Dist: colorama; sys_platform == "win32"
Requires-Dist: email-validator; extra == "email"
"""


def make_wheel(path: Path, **files: str) -> Path:
    with ZipFile(path, "w") as archive:
        for name, text in files.items():
            entry = ZipInfo(name)
            entry.external_attr = (0o755 if name.endswith("raylet") else 0o644) << 16
            archive.writestr(entry, text)
    return path


def test_the_projects_own_ranges_are_asked_for() -> None:
    names = wanted()
    assert "ray<2.61,>=2.60" in names
    assert any(name.startswith("deepspeed<") for name in names)
    assert len(names) == len(set(names))


def test_whatever_packages_need_is_in_the_bundle_or_in_the_image(tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "pydantic-2.whl", **{"pydantic-2.dist-info/METADATA": METADATA})
    assert [found.name for found in needed_by(metadata_of(wheel))] == ["pydantic-core", "numpy"]
    assert pinned(METADATA, "pydantic-core") == ["pydantic-core==2.50.5"]
    assert lacking([METADATA]) == ["pydantic-core"]
    assert lacking([METADATA, "Name: pydantic_core\n"]) == []


def test_ray_loses_what_no_job_uses_and_keeps_its_programs(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    files = {"ray/core/raylet": "a program", "ray/__init__.py": "", "ray/rllib/big.py": "", "ray/jars/big.jar": ""}
    repack(make_wheel(tmp_path / "ray-2.whl", **files), tmp_path / "bundle" / RAY_PACKED)
    with tarfile.open(tmp_path / "bundle" / RAY_PACKED) as packed:
        assert sorted(packed.getnames()) == ["ray/__init__.py", "ray/core/raylet"]
    assert install_bundle.install(tmp_path / "bundle", tmp_path / "site") == [RAY_PACKED]
    assert (tmp_path / "site/ray/core/raylet").stat().st_mode & 0o777 == 0o755


def test_wheels_are_unpacked_to_be_imported_by_python_alone(tmp_path: Path) -> None:
    """In a process without this environment's packages, as on a machine that has none."""
    (tmp_path / "bundle").mkdir()
    files = {
        "here/__init__.py": "from here.other import NUMBER",
        "here-3.data/platlib/here/other.py": "NUMBER = 3",
        "here-3.data/scripts/run": "not for here",
        "here-3.dist-info/METADATA": "Metadata-Version: 2.4\nName: here\nVersion: 3\n",
    }
    make_wheel(tmp_path / "bundle" / "here-3-py3-none-any.whl", **files)
    program = ROOT / "tests" / "measure" / "install_bundle.py"
    bare = [sys.executable, "-S", "-E"]
    subprocess.run([*bare, program, tmp_path / "site", "--bundle", tmp_path / "bundle"], check=True)
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import here, importlib.metadata as known; "
    code += "print(here.NUMBER, known.version('here'))"
    ran = subprocess.run([*bare, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["3", "3"]
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["here", "here-3.dist-info"]


def test_a_missing_bundle_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make_bundle where there is a network"):
        install_bundle.install(tmp_path, tmp_path / "site")


def test_the_bundle_is_no_part_of_the_repository() -> None:
    assert f"/{FOLDER.relative_to(ROOT)}/" in (ROOT / ".gitignore").read_text().splitlines()
