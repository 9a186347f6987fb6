"""The section data.curate: which methods there are, what each is asked, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mixdpo_ray.pairs.curating import CURATIONS, DS2, curation_name
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings


def data(curate: Any, **source: Any) -> DataSettings:
    return DataSettings(source=SourceSettings(path="x", **source), curate=curate)


@pytest.mark.parametrize("method", CURATIONS)
def test_every_method_is_found_by_its_name_and_written_with_it(method: str) -> None:
    one = data({"method": method})
    assert one.curate is not None
    assert curation_name(one.curate) == method
    written = one.model_dump(mode="json")
    assert written["curate"]["method"] == method
    assert DataSettings.model_validate(written) == one


@pytest.mark.parametrize(
    ("curate", "reason"),
    [
        ({"method": "ds3"}, "method 'ds3' is unknown; did you mean ds2"),
        ("ds2", "write {method: ..., and its settings}"),
        ({"method": "ds2", "edges": [5, 3]}, "give ascending numbers"),
        ({"method": "ds2", "embedding": {"kind": "surprise", "model": "m"}}, "leave model out"),
        ({"method": "agreement", "voters": 3}, "Extra inputs are not permitted"),
    ],
)
def test_what_makes_no_sense_is_refused(curate: Any, reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        data(curate)
    assert reason in str(caught.value)


def test_who_does_not_curate_has_the_identity_of_earlier_versions() -> None:
    content = data(None).identity()
    assert "curate" not in content
    assert content["max_row_bytes"] == 1 << 20
    assert "max_row_bytes" not in content["source"]
    assert data(None, max_row_bytes=5).identity()["max_row_bytes"] == 5


def test_whether_a_method_trains_models_is_known_before_ray_is_there() -> None:
    assert [name for name, kind in CURATIONS.items() if kind.trains] == ["perpcorrect"]
    assert DS2().embedding.model is None
