"""Held-out prompts: whole, spread over the margins, and the same whatever the order of the rows."""

from __future__ import annotations

import hashlib

import numpy as np

from mixdpo_ray.pairs.heldout import split_heldout
from mixdpo_ray.pairs.settings import HeldoutSettings


def prompt_names(count: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest()[:32] for number in range(count)]


def test_each_margin_gives_its_share() -> None:
    # 100 pairs at each of the margins 0, 1, ..., 9; a tenth of 1,000 is 10 per margin
    margins = np.repeat(np.arange(10.0), 100)
    mask = split_heldout(prompt_names(1000), margins, HeldoutSettings(fraction=0.1))
    assert np.bincount(margins[mask].astype(int)).tolist() == [10] * 10


def test_a_rare_margin_is_not_always_or_never_chosen() -> None:
    # margin 9 holds 5 of 1,000 pairs: at 10 % it gets none or one, over many seeds about half of one
    margins = np.concatenate([np.zeros(995), np.full(5, 9.0)])
    names = prompt_names(1000)
    found = [
        int(split_heldout(names, margins, HeldoutSettings(fraction=0.1, seed=seed))[-5:].sum()) for seed in range(200)
    ]
    assert set(found) == {0, 1}
    assert 70 <= sum(found) <= 130


def test_no_prompt_lies_on_both_sides() -> None:
    prompts = [name for name in prompt_names(100) for _ in range(3)]
    margins = np.random.default_rng(0).random(300)
    mask = split_heldout(prompts, margins, HeldoutSettings(fraction=0.2))
    assert mask.sum() == 60
    held = {prompt for prompt, out in zip(prompts, mask, strict=True) if out}
    assert all(out == (prompt in held) for prompt, out in zip(prompts, mask, strict=True))


def test_the_order_of_the_rows_does_not_matter() -> None:
    prompts = [name for name in prompt_names(200) for _ in range(2)]
    margins = np.round(np.random.default_rng(0).random(400) * 6) / 2
    mask = split_heldout(prompts, margins, HeldoutSettings(fraction=0.1))
    shuffle = np.random.default_rng(1).permutation(400)
    shuffled = split_heldout([prompts[row] for row in shuffle], margins[shuffle], HeldoutSettings(fraction=0.1))
    assert (shuffled == mask[shuffle]).all()


def test_another_seed_holds_out_other_prompts() -> None:
    names, margins = prompt_names(500), np.zeros(500)
    first = split_heldout(names, margins, HeldoutSettings(fraction=0.1, seed=1))
    second = split_heldout(names, margins, HeldoutSettings(fraction=0.1, seed=2))
    assert first.sum() == second.sum() == 50
    assert (first & second).sum() < 20


def test_max_pairs_is_never_exceeded_by_prompts_of_unequal_size() -> None:
    sizes = np.random.default_rng(0).integers(1, 9, 100)
    prompts = [name for name, size in zip(prompt_names(100), sizes, strict=True) for _ in range(size)]
    margins = np.random.default_rng(1).random(len(prompts))
    for limit in (0, 1, 7, 50):
        mask = split_heldout(prompts, margins, HeldoutSettings(fraction=0.9, max_pairs=limit))
        assert mask.sum() <= limit


def test_fraction_zero_and_no_pairs_hold_out_nothing() -> None:
    assert split_heldout(prompt_names(10), np.zeros(10), HeldoutSettings(fraction=0)).sum() == 0
    assert len(split_heldout([], np.zeros(0), HeldoutSettings())) == 0
