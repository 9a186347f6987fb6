"""Every rule keeps what a loop over sorted pairs would keep, whatever order the pairs come in."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from mixdpo_ray.curriculum.order import seeded_hashes
from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.selection import SELECTIONS, Selectable, Selection, select
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings

law = settings(max_examples=60, deadline=None)
EXAMPLES: dict[str, dict[str, Any]] = {
    "easiest": {"fraction": 0.5},
    "hardest": {"count": 2, "metric": "chosen_length"},
    "sample": {"fraction": 0.4},
    "quantiles": {"low": 0.2, "high": 0.7, "metric": "score_chosen"},
    "tier": {"tier": "medium"},
    "ties": {"quality": "high", "count": 1},
    "values": {"metric": "chosen_length", "at_least": 2, "at_most": 4},
}


def ids(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(count)]


def rules(*given: dict[str, Any]) -> tuple[Selection, ...]:
    return DataSettings.model_validate({"source": SourceSettings(path="x"), "select": list(given)}).select


def rule(name: str, **options: Any) -> Selection:
    return rules({"keep": name, **options})[0]


def pairs(margins: list[float], chosen: list[float] | None = None, lengths: list[int] | None = None) -> Selectable:
    count = len(margins)
    columns = {
        "rating_margin": np.array(margins, np.float64),
        "score_chosen": np.array(chosen or range(count), np.float64),
        "chosen_length": np.array(lengths or range(count), np.float64),
    }
    return Selectable(columns, pa.chunked_array([ids(count)], pa.string()), frozenset({"chosen_length"}))


def kept(one: Selection, of: Selectable) -> list[int]:
    return np.flatnonzero(one.keeps(of)).tolist()


def naive_easiest_first(of: Selectable, metric: str, seed: int = 42) -> list[int]:
    sign = -1 if metric.endswith("length") else 1
    hashes = seeded_hashes(of.pair_id, seed).tolist()
    return sorted(range(len(of)), key=lambda row: (-sign * of.columns[metric][row], hashes[row]))


MARGINS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0]), min_size=1, max_size=40)


@law
@given(margins=MARGINS, fraction=st.floats(0.01, 1), name=st.sampled_from(["easiest", "hardest"]))
def test_a_share_is_the_beginning_or_the_end_of_the_order_of_the_metric(
    margins: list[float], fraction: float, name: str
) -> None:
    of = pairs(margins)
    order = naive_easiest_first(of, "rating_margin")
    wanted = round(fraction * len(margins))
    expected = order[:wanted] if name == "easiest" else order[len(order) - wanted :]
    assert kept(rule(name, fraction=fraction), of) == sorted(expected)


@law
@given(margins=MARGINS, edges=st.tuples(st.integers(0, 9), st.integers(1, 10)).filter(lambda e: 0 < e[1] - e[0] < 10))
def test_a_range_of_quantiles_counts_from_the_hardest(margins: list[float], edges: tuple[int, int]) -> None:
    of = pairs(margins)
    low, high = (edge / 10 for edge in edges)
    order = naive_easiest_first(of, "rating_margin")[::-1]
    expected = order[round(low * len(order)) : round(high * len(order))]
    assert kept(rule("quantiles", low=low, high=high), of) == sorted(expected)


@law
@given(margins=MARGINS)
def test_the_three_tiers_share_the_pairs_out_and_lie_above_each_other(margins: list[float]) -> None:
    of = pairs(margins)
    hard, medium, easy = (kept(rule("tier", tier=name), of) for name in ("hard", "medium", "easy"))
    assert sorted([*hard, *medium, *easy]) == list(range(len(margins)))
    assert max(map(len, (hard, medium, easy))) - min(map(len, (hard, medium, easy))) <= 1
    for lower, higher in ((hard, medium), (medium, easy)):
        if lower and higher:
            assert max(margins[row] for row in lower) <= min(margins[row] for row in higher)


def test_shorter_is_easier_and_limits_are_lengths_all_the_same() -> None:
    of = pairs([0.0] * 5, lengths=[50, 10, 40, 20, 30])
    assert kept(rule("easiest", metric="chosen_length", count=2), of) == [1, 3]
    assert kept(rule("hardest", metric="chosen_length", count=2), of) == [0, 2]
    assert kept(rule("values", metric="chosen_length", at_least=20, at_most=40), of) == [2, 3, 4]
    assert kept(rule("values", metric="rating_margin", at_most=-1), of) == []


def test_ties_of_high_and_of_low_quality_are_ties() -> None:
    """Rows 1, 3, 4 and 6 are ties, the third of them only up to rounding."""
    margins = [2.0, 0.0, 0.5, 0.0, 0.1 + 0.2 - 0.3, 1.0, 0.0]
    of = pairs(margins, chosen=[9, 3, 9, 8, 5, 1, 4])
    assert kept(rule("ties"), of) == [1, 3, 4, 6]
    assert kept(rule("ties", quality="high", count=2), of) == [3, 4]
    assert kept(rule("ties", quality="low", count=2), of) == [1, 6]


def test_a_sample_of_a_tier_is_drawn_from_it_by_the_hash_of_each_pair() -> None:
    of = pairs([number / 10 for number in range(90)])
    tier = kept(rule("tier", tier="easy"), of)
    assert tier == list(range(60, 90))
    drawn = kept(rule("tier", tier="easy", sample=10), of)
    assert set(drawn) < set(tier)
    assert len(drawn) == 10
    assert drawn != kept(rule("tier", tier="easy", sample=10, seed=43), of)
    apart = select(rules({"keep": "tier", "tier": "easy"}, {"keep": "sample", "count": 10}), of)
    assert apart.rows.tolist() == drawn


def test_a_sample_does_not_follow_the_order_of_ties() -> None:
    of = pairs([1.0] * 200)
    first_of_ties = set(kept(rule("easiest", fraction=0.5), of))
    both = first_of_ties & set(kept(rule("sample", fraction=0.5), of))
    assert 25 < len(both) < 75  # 50 expected; the same hash would give 100


def test_rules_apply_to_what_the_ones_before_left_and_each_is_accounted_for() -> None:
    of = pairs([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], lengths=[1, 9, 1, 9, 1, 1])
    done = select(
        rules({"keep": "values", "metric": "chosen_length", "at_most": 5}, {"keep": "easiest", "fraction": 0.5}), of
    )
    assert done.rows.tolist() == [4, 5]
    assert done.left_out_by.tolist() == [1, 0, 1, 0, -1, -1]
    assert done.left == (4, 2)


@law
@pytest.mark.parametrize("name", SELECTIONS)
@given(data=st.data())
def test_no_rule_looks_at_the_order_of_the_pairs(name: str, data: st.DataObject) -> None:
    margins = [0.0, *data.draw(MARGINS), 0.0]
    of = pairs(margins)
    shuffle = np.array(data.draw(st.permutations(range(len(margins)))))
    shuffled = of[shuffle]
    one = rule(name, **EXAMPLES[name])
    assert sorted(shuffle[kept(one, shuffled)].tolist()) == kept(one, of)


def test_a_metric_that_pairs_lack_is_not_guessed() -> None:
    of = pairs([1.0, 2.0, 3.0], chosen=[1.0, np.nan, np.nan])
    with pytest.raises(DataError, match="easiest compares by score_chosen, which 2 of 3 pairs lack"):
        select(rules({"keep": "easiest", "metric": "score_chosen", "count": 1}), of)


def test_more_pairs_than_there_are_cannot_be_kept() -> None:
    with pytest.raises(DataError, match="easiest asks for 4 pairs, and 3 are there"):
        select(rules({"keep": "easiest", "count": 4}), pairs([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"keep": "easyest", "fraction": 0.5}, "keep 'easyest' is no rule: .*easiest, hardest"),
        ({"fraction": 0.5}, "keep None is no rule"),
        ({"keep": "easiest"}, "give fraction or count"),
        ({"keep": "easiest", "fraction": 0.5, "count": 3}, "fraction or count, and not both"),
        ({"keep": "easiest", "fraction": 1.5}, "less than or equal to 1"),
        ({"keep": "easiest", "fraction": 0.5, "tier": "hard"}, "Extra inputs are not permitted"),
        ({"keep": "quantiles", "low": 0.5, "high": 0.5}, "low 0.5 to high 0.5 keeps nothing"),
        ({"keep": "quantiles"}, "low 0 to high 1 keeps everything"),
        ({"keep": "tier", "tier": "middle"}, "'hard', 'medium' or 'easy'"),
        ({"keep": "ties", "count": 3}, "quality and count belong together"),
        ({"keep": "values", "metric": "score_chosen"}, "give at_least, at_most or both"),
        ({"keep": "values", "metric": "score_chosen", "at_least": 2, "at_most": 1}, "nothing would be kept"),
    ],
)
def test_a_rule_that_contradicts_itself_is_refused(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        rules(given)


@pytest.mark.parametrize("name", SELECTIONS)
def test_a_rule_is_written_down_as_it_was_given(name: str) -> None:
    data = DataSettings(source=SourceSettings(path="x"), select=rules({"keep": name, **EXAMPLES[name]}))
    written = data.model_dump(mode="json")
    assert written["select"][0]["keep"] == name
    assert DataSettings.model_validate(written) == data
