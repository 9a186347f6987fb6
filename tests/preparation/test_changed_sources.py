"""A source that changed is noticed, also where its size and time of change stayed what they were."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.preparation.prepare import SAMPLES, prepared_table
from mixdpo_ray.preparation.sources import SAMPLED, find_source
from mixdpo_ray.storage import delete
from mixdpo_ray.tables.prepared_table import PreparedTable
from tests.preparation.preparations import recipe, some_rows, write_jsonl


def replace_in_place(path: Path, old: bytes, new: bytes) -> None:
    """Neither size nor time tells."""
    times, content = path.stat(), path.read_bytes()
    assert len(old) == len(new)
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_both_ends_of_every_file_are_looked_at_and_nothing_between(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    size = 3 * SAMPLED
    samples, identities = set(), set()
    for place in (None, 0, SAMPLED - 1, size - SAMPLED, size - 1):
        content = bytearray(b" " * size)
        if place is not None:
            content[place] = ord("x")
        file.write_bytes(content)
        os.utime(file, ns=(1, 1))
        source = find_source(SourceSettings(path=str(tmp_path)))
        samples.add(source.sample())
        identities.add(str(source.identity))
    assert (len(samples), len(identities)) == (5, 1)
    file.write_bytes(b" " * SAMPLED + b"x" * SAMPLED + b" " * SAMPLED)
    assert find_source(SourceSettings(path=str(tmp_path))).sample() in samples


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_source_changed_behind_its_size_and_time_is_refused_until_its_table_is_removed(tmp_path: Path) -> None:
    rows = Path(write_jsonl(tmp_path / "rows.jsonl", some_rows(60)))
    asked = recipe(tmp_path, str(rows))
    table = prepared_table(asked)
    assert prepared_table(asked).manifest == table.manifest
    replace_in_place(rows, b"good7", b"best7")
    with pytest.raises(
        PreparedTableError, match=rf"rows\.jsonl has changed.*: remove {table.folder}, and jobs/prepare"
    ):
        prepared_table(asked)
    delete(table.folder)
    assert prepared_table(asked).folder == table.folder


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_a_table_of_before_is_found_by_the_same_name_and_read(tmp_path: Path) -> None:
    asked = recipe(tmp_path, write_jsonl(tmp_path / "rows.jsonl", some_rows(60)))
    table = prepared_table(asked)
    facts = {name: fact for name, fact in table.manifest.facts.items() if name != SAMPLES}
    earlier = table.manifest.model_copy(update={"facts": facts})
    (Path(table.folder) / "manifest.json").write_text(earlier.model_dump_json(exclude={"checksum"}))
    found: PreparedTable = prepared_table(asked)
    assert found.folder == table.folder
    everything = np.arange(table.rows("train"))
    assert found.read("train", everything).equals(table.read("train", everything))
