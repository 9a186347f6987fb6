"""How a window is dealt to ranks and micro-batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mixdpo_ray.curriculum.shares import Lengths, Share, TokenBudget, deal, rows_of_rank

WORLDS = range(1, 8)


@dataclass(frozen=True)
class Dealt:
    lengths: Lengths
    hard: NDArray[np.bool_]
    world: int
    per_device: int

    @property
    def shares(self) -> tuple[Share, ...]:
        return deal(self.lengths, self.hard, self.world, self.per_device)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """What a pair costs: the rejected answer, and the prompt before it, only when the pair is easy."""
        return np.where(
            self.hard,
            self.lengths.prompt + self.lengths.chosen,
            2 * self.lengths.prompt + self.lengths.chosen + self.lengths.rejected,
        )

    @property
    def longest(self) -> NDArray[np.int64]:
        answers = np.where(self.hard, self.lengths.chosen, np.maximum(self.lengths.chosen, self.lengths.rejected))
        return self.lengths.prompt + answers


def window_of(pairs: int, world: int, per_device: int = 2, seed: int = 0) -> Dealt:
    """Lengths like those of chats: log-normal, a third of the pairs hard."""
    generator = np.random.default_rng(seed)
    prompt, chosen, rejected = np.clip(generator.lognormal(5, 0.8, (3, pairs)), 1, 1024).astype(np.int64)
    return Dealt(Lengths(prompt, chosen, rejected), generator.random(pairs) < 1 / 3, world, per_device)


def own_rows(share: Share) -> list[int]:
    return [row for micro_batch in share if micro_batch.weight for row in micro_batch.rows.tolist()]


lengths = st.integers(1, 1024)


@st.composite
def windows(draw: st.DrawFn) -> Dealt:
    pairs = draw(st.lists(st.tuples(lengths, lengths, lengths, st.booleans()), min_size=1, max_size=40))
    prompt, chosen, rejected, hard = (np.array(column) for column in zip(*pairs, strict=True))
    return Dealt(Lengths(prompt, chosen, rejected), hard, draw(st.integers(1, 7)), draw(st.integers(1, 5)))


@settings(deadline=None, derandomize=True, max_examples=200)
@given(window=windows())
def test_the_laws_of_sharing(window: Dealt) -> None:
    pairs, shares = len(window.hard), window.shares
    assert len(shares) == window.world
    # every pair is trained exactly once over all ranks
    assert sorted(row for share in shares for row in own_rows(share)) == list(range(pairs))
    # under ZeRO-3 all ranks must run equally many forward passes, and no more than needed
    most = -(-pairs // window.world)
    assert {len(share) for share in shares} == {-(-most // window.per_device)}
    for share in shares:
        # fillers come last, repeat one real pair and have weight 0
        assert [micro_batch.weight for micro_batch in share] == sorted((mb.weight for mb in share), reverse=True)
        for micro_batch in share:
            assert 1 <= len(micro_batch.rows) <= window.per_device
            assert micro_batch.weight == 1 or (len(micro_batch.rows) == 1 and 0 <= micro_batch.rows[0] < pairs)
        # sorted by their longer answer, so that micro-batches pad little and the largest one comes first
        assert window.longest[own_rows(share)].tolist() == sorted(window.longest[own_rows(share)], reverse=True)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(window=windows())
def test_every_rank_computes_the_same_deal_alone(window: Dealt) -> None:
    def plain(shares: tuple[Share, ...]) -> list[list[tuple[list[int], int]]]:
        return [[(micro_batch.rows.tolist(), micro_batch.weight) for micro_batch in share] for share in shares]

    assert plain(window.shares) == plain(window.shares)


def test_four_pairs_on_two_ranks_by_hand() -> None:
    """They cost 210, 110, 90, 35 tokens: the first goes to rank 0 and the next two to rank 1."""
    window = Dealt(
        Lengths(np.array([10, 10, 10, 10]), np.array([100, 40, 30, 10]), np.array([90, 50, 40, 5])),
        np.zeros(4, np.bool_),
        world=2,
        per_device=1,
    )
    assert window.tokens.tolist() == [210, 110, 90, 35]
    assert [own_rows(share) for share in window.shares] == [[0, 3], [1, 2]]


def test_a_hard_pair_costs_its_chosen_answer_only() -> None:
    """Row 0 is hard: 10 + 30 tokens, whatever its rejected answer holds, so it is the shortest and is dealt last."""
    window = Dealt(
        Lengths(np.array([10, 10, 10]), np.array([30, 50, 40]), np.array([900, 45, 40])),
        np.array([True, False, False]),
        world=1,
        per_device=3,
    )
    assert own_rows(window.shares[0]) == [1, 2, 0]


def test_a_hard_pair_is_a_light_load() -> None:
    """Row 0 is hard and costs 110, rows 1-3 cost 210, 120 and 40: rank 0 has carried less when row 2 is dealt."""
    window = Dealt(
        Lengths(np.array([10] * 4), np.array([100, 95, 50, 10]), np.array([900, 95, 50, 10])),
        np.array([True, False, False, False]),
        world=2,
        per_device=2,
    )
    assert [own_rows(share) for share in window.shares] == [[0, 2], [1, 3]]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("pairs", [1, 2, 5, 128])
def test_a_rank_without_pairs_runs_fillers(world: int, pairs: int) -> None:
    shares = window_of(pairs, world).shares
    idle = [share for share in shares if not own_rows(share)]
    assert len(idle) >= world - pairs
    assert all(micro_batch.weight == 0 and len(micro_batch.rows) == 1 for share in idle for micro_batch in share)


def test_a_filler_is_the_cheapest_pair_at_hand() -> None:
    """Its own shortest pair, which the rank has read anyway; the window's shortest for a rank that has none."""
    window = window_of(5, world=7)
    shortest = int(np.argmin(window.longest))
    assert [share[0].rows.tolist() for share in window.shares if not own_rows(share)] == [[shortest], [shortest]]
    # costs 1802, 12, 10, 8: the last pair goes to the third rank, and the first two repeat the only one they have
    uneven = Dealt(
        Lengths(np.array([1] * 4), np.array([900, 5, 4, 3]), np.array([900, 5, 4, 3])), np.zeros(4, np.bool_), 3, 1
    )
    assert [[(mb.rows.tolist(), mb.weight) for mb in share] for share in uneven.shares] == [
        *[[([0], 1), ([0], 0)], [([1], 1), ([1], 0)], [([2], 1), ([3], 1)]],
    ]


@pytest.mark.parametrize("world", WORLDS)
def test_the_load_of_ranks_differs_by_little(world: int) -> None:
    """Over fifty windows of chat-like lengths the busiest rank carries at most 6 % more tokens than the mean."""
    excess, naive = [], []
    for seed in range(50):
        window = window_of(128, world, seed=seed)
        loads = np.array([window.tokens[own_rows(share)].sum() for share in window.shares])
        in_turn = np.array([window.tokens[rank::world].sum() for rank in range(world)])
        excess.append(loads.max() / loads.mean() - 1)
        naive.append(in_turn.max() / in_turn.mean() - 1)
    assert np.mean(excess) <= 0.06
    assert world == 1 or np.mean(excess) < np.mean(naive) / 2


def test_sorting_by_length_saves_most_of_the_padding() -> None:
    """Tokens of the padded longest sides, two pairs to a micro-batch: less than a third of the waste of table order."""
    window = window_of(128, 2)
    longest = window.longest
    useful = longest.sum()
    micro_batches = [mb.rows for share in window.shares for mb in share if mb.weight]
    padded = sum(int(longest[rows].max()) * len(rows) for rows in micro_batches)
    in_table_order = sum(int(longest[start : start + 2].max()) * 2 for start in range(0, 128, 2))
    assert padded - useful < (in_table_order - useful) / 3


def packed_places(window: Dealt) -> NDArray[np.int64]:
    return window.lengths.prompt + window.lengths.chosen + np.where(window.hard, 0, window.lengths.rejected)


def check_packed(window: Dealt, packed: tuple[Share, ...]) -> None:
    """Every pair once, as many passes on every rank, heavy ones first and fillers last."""
    assert sorted(row for share in packed for row in own_rows(share)) == list(range(len(window.hard)))
    assert len({len(share) for share in packed}) == 1
    for rank, share in enumerate(packed):
        weights = [micro.weight for micro in share]
        assert weights == sorted(weights, reverse=True)
        loads = [int(packed_places(window)[micro.rows].sum()) for micro in share if micro.weight]
        assert loads == sorted(loads, reverse=True)
        rows = np.unique(np.concatenate([micro.rows for micro in share]))
        found = rows_of_rank(window.lengths, window.hard, window.world, rank, packed=True)
        assert found.tolist() == rows.tolist()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(window=windows())
def test_the_laws_of_sharing_packed_rows(window: Dealt) -> None:
    packed = deal(window.lengths, window.hard, window.world, window.per_device, packed=True)
    check_packed(window, packed)
    assert [len(share) for share in packed] == [len(share) for share in window.shares]
    assert all(1 <= len(micro.rows) <= window.per_device for share in packed for micro in share)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(window=windows(), tokens=st.integers(1, 4000))
def test_the_laws_of_a_budget_of_tokens(window: Dealt, tokens: int) -> None:
    """Passes keep it, or hold one pair that is longer."""
    packed = deal(window.lengths, window.hard, window.world, TokenBudget(tokens=tokens), packed=True)
    check_packed(window, packed)
    places = packed_places(window)
    assert all(places[micro.rows].sum() <= tokens or len(micro.rows) == 1 for share in packed for micro in share)
    fewest = max(-(-int(np.minimum(places[own_rows(share)], tokens).sum()) // tokens) for share in packed)
    assert fewest <= len(packed[0])


def test_five_pairs_under_a_budget_by_hand() -> None:
    """They take 60, 50, 40, 30 and 120 tokens: the last is above 100; of the others 60 + 30 and 50 + 40 are level."""
    lengths = Lengths(np.full(5, 10), np.array([30, 25, 20, 15, 80]), np.array([20, 15, 10, 5, 30]))
    (share,) = deal(lengths, np.zeros(5, np.bool_), 1, TokenBudget(tokens=100), packed=True)
    assert [micro.rows.tolist() for micro in share] == [[4], [0, 3], [1, 2]]


def test_passes_are_level_only_where_that_keeps_the_budget() -> None:
    """Tokens 30, 30, 20, 20, 20 under 60: 30 + 30 and 20 + 20 + 20 fit; the lightest first would hold 30 + 20 + 20."""
    lengths = Lengths(np.full(5, 10), np.array([10, 10, 5, 5, 5]), np.array([10, 10, 5, 5, 5]))
    (share,) = deal(lengths, np.zeros(5, np.bool_), 1, TokenBudget(tokens=60), packed=True)
    assert [micro.rows.tolist() for micro in share] == [[0, 1], [2, 3, 4]]


def test_packed_pairs_are_dealt_to_ranks_by_what_is_run_of_them() -> None:
    """200 + 10 + 10 tokens are run once with their prompt, 420 if twice: one rank takes the first, the other two."""
    lengths = Lengths(np.array([200, 10, 10]), np.array([10, 105, 95]), np.array([10, 105, 95]))
    ranks = [deal(lengths, np.zeros(3, np.bool_), 2, 2, packed=packed) for packed in (False, True)]
    assert [[own_rows(share) for share in shares] for shares in ranks] == [[[0], [1, 2]], [[0, 2], [1]]]


def test_packed_micro_batches_are_of_like_size() -> None:
    """Over fifty windows the largest holds 1.1 times the mean; cut by length it would hold 1.5 times as much."""
    packed: list[float] = []
    by_length: list[float] = []
    for seed in range(50):
        window = window_of(128, 2, per_device=8, seed=seed)
        places = packed_places(window)
        for peaks, level in ((packed, True), (by_length, False)):
            shares = deal(window.lengths, window.hard, 2, 8, packed=level)
            loads = np.array([places[micro.rows].sum() for share in shares for micro in share])
            peaks.append(loads.max() / loads.mean())
    assert np.mean(packed) < 1.1
    assert np.mean(by_length) > 1.5


def test_lengths_are_selected_together() -> None:
    chosen = Lengths(np.array([1, 2]), np.array([3, 4]), np.array([5, 6]))[np.array([1])]
    assert [chosen.prompt.tolist(), chosen.chosen.tolist(), chosen.rejected.tolist()] == [[2], [4], [6]]


@settings(deadline=None, derandomize=True, max_examples=100)
@given(window=windows())
def test_the_rows_of_one_rank_are_those_of_its_share(window: Dealt) -> None:
    for rank, share in enumerate(window.shares):
        rows = np.unique(np.concatenate([micro_batch.rows for micro_batch in share]))
        assert rows_of_rank(window.lengths, window.hard, window.world, rank).tolist() == rows.tolist()


@settings(deadline=None, derandomize=True, max_examples=100)
@given(window=windows())
def test_dealing_equals_a_naive_search_for_the_least_loaded_rank(window: Dealt) -> None:
    tokens, longest, pairs = window.tokens, window.longest, len(window.hard)
    dealt: list[list[int]] = [[] for _ in range(window.world)]
    for row in sorted(range(pairs), key=lambda row: (-longest[row], -tokens[row], row)):
        having_room = [rank for rank in range(window.world) if len(dealt[rank]) < -(-pairs // window.world)]
        least = min(having_room, key=lambda rank: (sum(tokens[dealt[rank]]), rank))
        dealt[least].append(row)
    assert [own_rows(share) for share in window.shares] == dealt
