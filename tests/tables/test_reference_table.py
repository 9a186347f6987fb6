import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mixdpo_ray.errors import NonFiniteError, PreparedTableError
from mixdpo_ray.tables.reference_table import ReferenceTable


def references(**logps: float) -> pa.Table:
    """The rejected answer's log-prob is one less than the chosen one's."""
    rejected = [value - 1 for value in logps.values()]
    return pa.table({"pair_id": list(logps), "ref_chosen_logp": list(logps.values()), "ref_rejected_logp": rejected})


def test_log_probs_come_back_in_the_order_asked_for_and_nan_where_unknown(tmp_path: Path) -> None:
    ReferenceTable.create(str(tmp_path), "f").append(references(a=-1.0, b=-2.0, c=-3.5))
    chosen, rejected = ReferenceTable.open(str(tmp_path)).aligned(["c", "x", "a"])
    np.testing.assert_array_equal(chosen, np.array([-3.5, np.nan, -1.0], np.float32))
    np.testing.assert_array_equal(rejected, np.array([-4.5, np.nan, -2.0], np.float32))
    assert chosen.dtype == np.float32


def test_a_lower_threshold_appends_only_what_is_missing(tmp_path: Path) -> None:
    table = ReferenceTable.create(str(tmp_path), "f", {"model": "m"})
    table.append(references(a=-1.0, b=-2.0))
    assert table.missing(["a", "b", "c", "d"]) == ["c", "d"]
    table.append(references(c=-3.0, a=-9.0))
    reopened = ReferenceTable.open(str(tmp_path))
    assert reopened.manifest.pairs == 3
    assert reopened.manifest.facts == {"model": "m"}
    assert reopened.missing(["d", "a"]) == ["d"]
    assert reopened.aligned(["a"])[0].tolist() == [-1.0]  # what was covered stays


def test_an_empty_table_covers_nothing(tmp_path: Path) -> None:
    table = ReferenceTable.create(str(tmp_path), "f")
    assert table.missing(["a"]) == ["a"]
    assert math.isnan(table.aligned(["a"])[0][0])
    assert len(table.aligned([])[0]) == 0


def test_creating_again_keeps_what_is_there_and_refuses_another_fingerprint(tmp_path: Path) -> None:
    ReferenceTable.create(str(tmp_path), "f").append(references(a=-1.0))
    assert ReferenceTable.create(str(tmp_path), "f").manifest.pairs == 1
    with pytest.raises(PreparedTableError, match="other references"):
        ReferenceTable.create(str(tmp_path), "g")


def test_a_folder_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PreparedTableError, match=r"manifest\.json is missing"):
        ReferenceTable.open(str(tmp_path / "nothing"))


def test_a_part_that_was_not_committed_does_not_count(tmp_path: Path) -> None:
    table = ReferenceTable.create(str(tmp_path), "f")
    table.append(references(a=-1.0))
    committed = (tmp_path / "manifest.json").read_bytes()
    table.append(references(b=-2.0))
    (tmp_path / "manifest.json").write_bytes(committed)  # killed before the manifest
    survivor = ReferenceTable.open(str(tmp_path))
    assert survivor.missing(["a", "b"]) == ["b"]
    survivor.append(references(b=-2.0))
    assert ReferenceTable.open(str(tmp_path)).missing(["a", "b"]) == []


def test_a_log_prob_that_is_not_finite_is_never_stored(tmp_path: Path) -> None:
    table = ReferenceTable.create(str(tmp_path), "f")
    with pytest.raises(NonFiniteError, match="ref_chosen_logp of pair b"):
        table.append(references(a=-1.0, b=math.nan))
    assert ReferenceTable.open(str(tmp_path)).missing(["a"]) == ["a"]


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    ReferenceTable.create(str(tmp_path), "f").append(references(a=-1.0))
    part = next(tmp_path.glob("part-*"))
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(PreparedTableError, match=part.name):
        ReferenceTable.open(str(tmp_path)).aligned(["a"])
