import pytest

from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.file_kinds import file_kind, is_plain_lines, kind_by_name


@pytest.mark.parametrize(
    ("file", "kind", "plain"),
    [
        ("a/b.parquet", "parquet", False),
        ("b.json", "json", False),
        ("b.json.gz", "json", False),
        ("s3://bucket/b.jsonl", "jsonl", True),
        ("b.ndjson", "jsonl", True),
        ("b.jsonl.zst", "jsonl", False),
        ("b.csv", None, False),
        ("b.gz", None, False),
        ("jsonl", None, False),
    ],
)
def test_a_kind_is_told_by_the_ending(file: str, kind: str | None, plain: bool) -> None:
    assert kind_by_name(file) == kind
    assert is_plain_lines(file) == plain


def test_a_source_of_another_kind_is_refused() -> None:
    with pytest.raises(DataError, match=r"pairs.csv ends in none of .* rename or convert"):
        file_kind("pairs.csv")
