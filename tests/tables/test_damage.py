"""A flipped bit is refused or changes nothing, in every kind of file; files without checksums are read as before."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.tables import verification
from mixdpo_ray.tables.keyed_table import KeyedManifest
from mixdpo_ray.tables.parquet import write_parquet
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.tables.verification import verify_parts
from tests.measure.damage import Kind, flip, kinds, make_table

NAMES = (
    *("prepared part", "index", "prepared manifest", "reference part", "reference manifest"),
    *("token reference part", "token reference manifest", "scores part", "scores manifest", "checkpoint manifest"),
    *("playground world.json", "playground pairs.jsonl", "playground base/model.safetensors", "study's journal"),
)
PAIRS = 96


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return {kind.name: kind for kind in kinds(tmp_path_factory.mktemp("damage"))}


@pytest.fixture
def table(tmp_path: Path) -> PreparedTable:
    return make_table(tmp_path / "table", PAIRS)


def test_every_kind_of_file_is_tried(every_kind: dict[str, Kind]) -> None:
    assert tuple(every_kind) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_refused_in_one_line_or_without_effect(every_kind: dict[str, Kind], name: str) -> None:
    kind = every_kind[name]
    bits = np.random.default_rng(zlib.crc32(name.encode())).integers(0, kind.path.stat().st_size * 8, 25)
    found = flip(kind, bits)
    assert set(found) <= {"refused", "without effect"}
    assert found["refused"] >= 20


def damage(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("place", [1000, -1000, -1])
def test_a_damaged_part_is_named_with_the_command_that_makes_it_anew(table: PreparedTable, place: int) -> None:
    (part,) = table.parts("train")
    damage(Path(part.path), place)
    with pytest.raises(PreparedTableError) as refused:
        table.read("train", np.arange(PAIRS))
    assert str(refused.value) == (
        f"{part.path} is missing or damaged (it has other content than was written): remove {table.folder}, and "
        "jobs/prepare.py makes it anew"
    )


def test_damaged_references_are_named_with_what_computes_them_again(tmp_path: Path) -> None:
    table = ReferenceTable.create(str(tmp_path), "f")
    table.append(pa.table({"pair_id": ["a"], "ref_chosen_logp": [-1.0], "ref_rejected_logp": [-2.0]}))
    (part,) = tmp_path.glob("part-*")
    damage(part, 40)
    with pytest.raises(PreparedTableError, match=rf"{part}.*: remove {tmp_path}, and jobs/train\.py computes it again"):
        ReferenceTable.open(str(tmp_path)).missing(["a"])


def test_no_more_is_verified_than_is_read(table: PreparedTable) -> None:
    """Pairs of the first row group, or one column, do not care for damage elsewhere."""
    (part,) = table.parts("train")
    group = pq.read_metadata(part.path).row_group(3)
    tokens, scores = group.column(2), group.column(5)
    damage(Path(part.path), tokens.data_page_offset + tokens.total_compressed_size // 2)
    assert len(table.read("train", np.arange(16))) == 16
    assert len(table.column("train", "score_chosen")) == PAIRS
    with pytest.raises(PreparedTableError, match="other content"):
        table.read("train", np.array([48]))
    damage(Path(part.path), scores.data_page_offset + scores.total_compressed_size - 1)
    with pytest.raises(PreparedTableError, match="other content"):
        table.column("train", "score_chosen")


def test_damage_in_rows_that_nobody_asked_for_yet_is_told_before_a_run_begins(table: PreparedTable) -> None:
    (part,) = table.parts("train")
    verify_parts(table)
    tokens = pq.read_metadata(part.path).row_group(5).column(2)
    damage(Path(part.path), tokens.data_page_offset + tokens.total_compressed_size // 2)
    with pytest.raises(PreparedTableError, match="other content"):
        verify_parts(table)
    Path(part.path).unlink()
    with pytest.raises(PreparedTableError, match="is missing or damaged"):
        verify_parts(table)


def test_a_large_table_is_left_to_those_who_read_it(table: PreparedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MOST_BYTES", 1000)
    (part,) = table.parts("train")
    damage(Path(part.path), 1000)
    verify_parts(table)


def test_a_sound_part_of_another_table_is_refused(table: PreparedTable, tmp_path: Path) -> None:
    (part,) = table.parts("train")
    rows = table.read("train", np.arange(PAIRS))
    scores = rows.schema.get_field_index("score_chosen")
    write_parquet(part.path, rows.set_column(scores, "score_chosen", pa.array(np.full(PAIRS, 7.0))))
    with pytest.raises(PreparedTableError, match="other content"):
        table.read("train", np.array([0]))


def test_other_readers_of_parquet_see_nothing_of_it(table: PreparedTable) -> None:
    (part,) = table.parts("train")
    assert pq.read_table(part.path).equals(table.read("train", np.arange(PAIRS)))


def test_a_table_from_before_there_were_checksums_is_read(table: PreparedTable) -> None:
    (part,) = table.parts("train")
    expected, index = table.read("train", np.arange(PAIRS)), table.index("train")
    pq.write_table(expected, part.path, row_group_size=16, use_dictionary=False, write_statistics=False)
    index_path = Path(part.path).with_name("index.parquet")
    pq.write_table(pq.read_table(index_path), index_path)
    text = table.manifest.model_dump_json(exclude={"checksum": True, "splits": {"train": {"seals", "index_seal"}}})
    (Path(table.folder) / "manifest.json").write_text(text)
    opened = PreparedTable.open(table.folder)
    verify_parts(opened)
    assert opened.read("train", np.arange(PAIRS)).equals(expected)
    assert opened.index("train").margin.tolist() == index.margin.tolist()


def test_references_from_before_there_were_checksums_are_kept_and_what_is_added_is_verified(tmp_path: Path) -> None:
    def rows(name: str) -> pa.Table:
        return pa.table({"pair_id": [name], "ref_chosen_logp": [-1.0], "ref_rejected_logp": [-2.0]})

    table = ReferenceTable.create(str(tmp_path), "f")
    table.append(rows("a"))
    (before,) = tmp_path.glob("part-*")
    pq.write_table(pq.read_table(before), before)
    text = table.manifest.model_dump_json(exclude={"checksum", "seals"})
    (tmp_path / "manifest.json").write_text(text)
    ReferenceTable.open(str(tmp_path)).append(rows("b"))
    opened = ReferenceTable.open(str(tmp_path))
    assert opened.missing(["a", "b"]) == []
    (added,) = opened.manifest.seals
    damage(tmp_path / added, 40)
    with pytest.raises(PreparedTableError, match=added):
        ReferenceTable.open(str(tmp_path)).missing(["a"])


def test_a_manifest_is_read_whatever_its_facts_say(tmp_path: Path) -> None:
    facts = {"checksum": "", "note": '"checksum": ""', "ü": [1e-7, 0.1, None]}
    content = KeyedManifest(fingerprint="f", facts=facts).to_json()
    assert KeyedManifest.from_json(content).facts == facts
    with pytest.raises(ValueError, match="other content"):
        KeyedManifest.from_json(content.replace(b"1e-7", b"2e-7"))
