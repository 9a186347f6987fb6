import numpy as np
import pytest

from mixdpo_ray.difficulty.correlations import (
    correlations_text,
    draw_correlations,
    mean_ranks,
    picture_name,
    spearman,
    without_order,
)


def naive_spearman(one: list[float], other: list[float]) -> float:
    """By counting who is smaller, and Pearson's formula of the ranks."""

    def ranks(values: list[float]) -> list[float]:
        return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]

    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def test_ties_share_the_mean_of_their_ranks() -> None:
    assert mean_ranks(np.array([3.0, 1.0, 3.0, 7.0, 3.0])).tolist() == [3, 1, 3, 5, 3]


def test_rank_correlations_agree_with_counting() -> None:
    draw = np.random.default_rng(0)
    columns = {name: draw.integers(0, 6, 40).astype(float) for name in "abc"}
    matrix = spearman(columns)
    for row, one in enumerate(columns.values()):
        for column, other in enumerate(columns.values()):
            assert matrix[row, column] == pytest.approx(naive_spearman(one.tolist(), other.tolist()))


def test_any_growing_function_of_a_metric_is_the_same_order_and_its_negative_the_opposite() -> None:
    values = np.array([0.1, 2.0, -3.0, 0.7])
    matrix = spearman({"a": values, "b": np.exp(values), "c": -values})
    np.testing.assert_allclose(matrix[0], [1, 1, -1])


def test_a_metric_that_says_the_same_of_every_pair_has_no_correlation() -> None:
    columns = {"a": np.array([1.0, 2.0, 3.0]), "same": np.ones(3)}
    assert np.isnan(spearman(columns)[0, 1])
    lines = correlations_text(columns).splitlines()
    assert lines[1].split() == ["1", "a", "1.00", "-"]
    assert lines[-1] == "-: same is the same for every pair, which is no order"
    assert without_order({"a": columns["a"]}) is None


def test_the_picture_is_a_png() -> None:
    assert draw_correlations({"a": np.arange(3.0), "b": np.array([2.0, 1, 0])}).startswith(b"\x89PNG")


def test_only_the_same_numbers_of_the_same_metrics_share_a_picture() -> None:
    values = np.arange(3.0)
    others = [{"a": values}, {"b": values}, {"a": values, "b": values}, {"a": -values}]
    assert len({picture_name("table", columns) for columns in others}) == 4
    assert picture_name("table", {"a": values}) == picture_name("table", {"a": values.copy()})
