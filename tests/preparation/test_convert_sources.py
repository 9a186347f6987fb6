"""What comes to the driver when rows are converted: keys, refusals, counts."""

from __future__ import annotations

import pyarrow as pa
import pytest

from mixdpo_ray.preparation.convert_sources import KEPT_SCHEMA, SIZES, convert_sources
from tests.measure.scale.made_source import made


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_keys_of_all_tasks_come_together_and_may_hold_more_text_than_one_array_of_strings() -> None:
    """67 million ids of 32 characters are 2 GiB, and pyarrow takes no rows of more unless strings are large."""
    source, stage = made(5_000, fraction=0.02)
    done: list[tuple[int, int]] = []
    staged = convert_sources({"data.source": source}, [stage], SIZES, lambda tasks, of: done.append((tasks, of)))
    assert done[-1] == (3, 3)
    assert staged.rows_in == len(staged.keys) == 5_000
    assert staged.notes == {"truncated_answer": 250}
    assert staged.keys.schema == KEPT_SCHEMA
    assert {kind for kind in KEPT_SCHEMA.types if pa.types.is_string(kind)} == set()
    assert sorted(staged.keys["row"].to_pylist()) == list(range(5_000))
