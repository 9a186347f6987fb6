"""Which files a path stands for; links that lead nowhere or in circles are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.source_files import expand_paths
from tests.pairs.test_reading import write


def test_paths_may_be_files_folders_and_globs_and_each_file_counts_once(tmp_path: Path) -> None:
    names = ("b/2.jsonl", "b/1.jsonl.gz", "b/c/3.parquet", "b/readme.md", "b/.hidden.jsonl", "b/_tmp/4.jsonl", "d.json")
    for name in names:
        write(tmp_path / name, "")

    def found(*paths: str) -> list[str]:
        return [
            str(Path(file).relative_to(tmp_path)) for file in expand_paths([f"{tmp_path}/{path}" for path in paths])
        ]

    assert found("d.json") == ["d.json"]
    assert found("b") == ["b/1.jsonl.gz", "b/2.jsonl", "b/c/3.parquet"]
    assert found("b/*.jsonl*") == ["b/.hidden.jsonl", "b/1.jsonl.gz", "b/2.jsonl"]
    assert found("**/[23].*") == ["b/2.jsonl", "b/c/3.parquet"]
    assert found("d.json", "?.json", "b/2.jsonl") == ["d.json", "b/2.jsonl"]
    assert expand_paths(f"file://{tmp_path}/d.json") == [f"{tmp_path}/d.json"]


def test_a_path_without_files_is_an_error_that_names_it(tmp_path: Path) -> None:
    for path in ("nothing", "*.parquet", "nothing/**/*.jsonl"):
        with pytest.raises(
            DataError,
            match=r"no file there that ends in .parquet, .*, also with .gz, .bz2, .zst or .lz4; check the path",
        ):
            expand_paths(f"{tmp_path}/{path}")


@pytest.mark.parametrize("path", ["data", "data/*.jsonl", "**/*.jsonl", "data/b.jsonl*"])
def test_a_link_that_leads_nowhere_is_refused_by_its_name(tmp_path: Path, path: str) -> None:
    write(tmp_path / "data" / "a.jsonl", "")
    (tmp_path / "data" / "b.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(
        DataError, match=r"data/b\.jsonl is a link to gone\.jsonl, which is not there: mend or remove it"
    ):
        expand_paths(f"{tmp_path}/{path}")


@pytest.mark.parametrize("path", ["data", "data/**/*.jsonl"])
def test_a_link_in_a_circle_is_refused_by_its_name(tmp_path: Path, path: str) -> None:
    write(tmp_path / "data" / "inner" / "a.jsonl", "")
    (tmp_path / "data" / "inner" / "self").symlink_to("..")
    with pytest.raises(DataError, match=r"data/inner/self is a link to a folder that it lies in: remove it"):
        expand_paths(f"{tmp_path}/{path}")


def test_links_that_nobody_asked_for_disturb_nobody(tmp_path: Path) -> None:
    file = write(tmp_path / "data" / "a.jsonl", "")
    (tmp_path / "data" / "self").symlink_to(".")
    (tmp_path / "data" / "notes.md").symlink_to("gone.md")
    assert expand_paths(f"{tmp_path}/data/*.jsonl") == [file]


def test_links_to_files_and_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "store" / "blob", "")
    write(tmp_path / "more" / "b.jsonl", "")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").symlink_to(tmp_path / "store" / "blob")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "more")
    assert expand_paths(f"{tmp_path}/data") == [f"{tmp_path}/data/a.jsonl", f"{tmp_path}/data/more/b.jsonl"]
