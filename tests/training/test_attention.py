"""Packed rows against each sequence alone in the model's own forward, over families; the forms against each other."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training import attention
from mixdpo_ray.training.attention import (
    CALL,
    in_one_call,
    in_padded_spans,
    packed_attention,
    under_masks,
    use_packed_attention,
    why_not_packed,
)
from mixdpo_ray.training.batch import PairBatch, TokenRows, build_batch
from mixdpo_ray.training.length_groups import RowKind
from mixdpo_ray.training.logps import Scorer, check_exactness
from mixdpo_ray.training.model import recompute_activations
from mixdpo_ray.training.packed_rows import Layout, Span
from mixdpo_ray.training.row_slices import WHOLE, RowSlice
from tests.host_waits import HostWaits
from tests.training.families import naive, random_model

Pair = tuple[list[int], list[int], list[int]]
# Prompts of 1 to 8 tokens, answers of 1 to 7; the last pair is hard
PAIRS: list[Pair] = [
    ([5, 6, 7, 8, 9, 10, 11, 12], [2], [13, 14, 15, 16, 17, 18, 2]),
    ([3, 4], [10, 11, 12, 2], [30, 31]),
    ([5], [20, 21, 22], [9, 9]),
]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16},
    "mistral": {"sliding_window": 6},
    "gemma2": {"head_dim": 8, "sliding_window": 4, "attn_logit_softcapping": 0.5},
    "gemma3_text": {"head_dim": 8, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "phi3": {"sliding_window": 5},
    "olmo2": {},
    "cohere2": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 3.0, "attention_multiplier": 0.3},
    "starcoder2": {"sliding_window": 4},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "num_key_value_heads": 4},
    "gpt_neox": {},
}
PADDED: dict[str, tuple[dict[str, Any], str]] = {  # family, and why it is
    "stablelm": ({}, "StableLmForCausalLM does not go through transformers' attention interface"),
    "gpt_oss": ({"num_local_experts": 4, "head_dim": 8}, "GptOssForCausalLM has attention sinks"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "Lfm2ForCausalLM has layers of conv"),
    "falcon": ({"alibi": True}, "FalconForCausalLM does not go through transformers' attention interface"),
}


def batch_of(pairs: list[Pair], rows: RowKind = "packed", hard: int = 1, row_slice: RowSlice = WHOLE) -> PairBatch:
    columns = dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), zip(*pairs, strict=True), strict=True))
    lists = {name: pa.array(column, pa.list_(pa.int32())) for name, column in columns.items()}
    positions = np.arange(len(pairs))
    tokens = TokenRows.of(pa.table({**lists, "margin": np.ones(len(pairs))}), positions)
    return build_batch(
        tokens, positions, positions >= len(pairs) - hard, None, weight=1, padding=0, device=torch.device("cpu"),
        rows=rows, row_slice=row_slice,
    )  # fmt: skip


def truth_of(model: Any, pairs: list[Pair], hard: int = 1) -> Tensor:
    """In the order of a batch: chosen answers, then the rejected ones of easy pairs."""
    chosen = [naive(model, prompt, answer) for prompt, answer, _ in pairs]
    return torch.stack(chosen + [naive(model, prompt, answer) for prompt, _, answer in pairs[: len(pairs) - hard]])


def difference(mine: dict[str, Tensor], truth: dict[str, Tensor]) -> float:
    squares = sum(float((mine[name] - truth[name]).square().sum()) for name in truth)
    return math.sqrt(squares / sum(float(tensor.square().sum()) for tensor in truth.values()))


def gradients(model: Any, sums: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    torch.autograd.backward((sums * torch.linspace(1, -2, len(sums))).sum())
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(params=[CALL, 0], ids=["in_padded_spans", "a_call_each"])
def cost(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a call of the CPU's kernel costs; where it costs nothing, every span has its own."""
    monkeypatch.setattr(attention, "CALL", request.param)


@pytest.mark.parametrize(
    ("family", "call"), [*((family, CALL) for family in FAMILIES), ("llama", 0), ("gemma3_text", 0), ("gpt2", 0)]
)
def test_sums_and_gradients_are_those_of_each_sequence_alone(
    family: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CALL", call)
    model = random_model(family, **FAMILIES[family])
    truth = truth_of(model, PAIRS)
    expected = gradients(model, truth)
    scorer = Scorer(model, packing=True)
    found = scorer(batch_of(PAIRS)).sum(1)
    assert torch.allclose(found, truth, rtol=1e-5, atol=1e-5)
    assert difference(gradients(model, found), expected) < 1e-5
    padded = scorer(batch_of(PAIRS, "grouped")).sum(1)  # generation and plain passes go through the same function
    assert torch.allclose(padded, truth, rtol=1e-5, atol=1e-5)
    check_exactness(scorer, batch_of(PAIRS), batch_of(PAIRS, "together"), 2, torch.float32)


def test_a_row_with_wrong_positions_is_refused_before_training() -> None:
    scorer, batch = Scorer(random_model("llama"), packing=True), batch_of(PAIRS)
    (row,) = batch.groups
    assert row.positions is not None
    wrong = replace(batch, groups=(replace(row, positions=torch.zeros_like(row.positions)),))
    with pytest.raises(ModelError, match=r"differ from the model's full forward pass by .*: set model\.packing off$"):
        check_exactness(scorer, wrong, batch_of(PAIRS, "together"), 2, torch.float32, ["model.packing off"])


@pytest.mark.parametrize(("pairs", "hard"), [(PAIRS[:1], 0), (PAIRS[:1], 1), (PAIRS, 3), ([([7], [8], [9])], 0)])
def test_any_number_of_pairs_of_any_kind_makes_a_row(pairs: list[Pair], hard: int) -> None:
    """One easy pair, one hard pair, hard pairs alone, and a pair of single tokens."""
    model = random_model("llama")
    truth = truth_of(model, pairs, hard)
    found = Scorer(model, packing=True)(batch_of(pairs, hard=hard)).sum(1)
    assert torch.allclose(found, truth, rtol=1e-5, atol=1e-5)


def test_no_packed_pass_waits_for_the_device() -> None:
    """A padded one does, once: transformers looks whether its positions begin again."""
    scorer = Scorer(random_model("llama"), packing=True)
    batch = batch_of(PAIRS)
    with HostWaits() as waits:
        torch.autograd.backward(scorer(batch, 2).sum())
    assert waits.found == []


@pytest.mark.usefixtures("cost")
@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_nothing_leaks(family: str) -> None:
    """A token of pair 1 moves no other pair by a bit, nor does a chosen token its own pair's rejected answer."""
    scorer = Scorer(random_model(family, **FAMILIES[family]), packing=True)
    prompt, chosen, rejected = PAIRS[1]
    changed = [PAIRS[0], (prompt, [40, *chosen[1:]], rejected), PAIRS[2]]
    with torch.no_grad():
        before, after = (scorer(batch_of(pairs)).sum(1) for pairs in (PAIRS, changed))
    assert (before != after).tolist() == [False, True, False, False, False]
    changed = [([4, *PAIRS[0][0][1:]], *PAIRS[0][1:]), *PAIRS[1:]]
    with torch.no_grad():
        after = scorer(batch_of(changed)).sum(1)
    assert (before != after).tolist() == [True, False, False, True, False]


@pytest.mark.usefixtures("cost")
def test_gradient_checkpointing_changes_no_bit() -> None:
    model = random_model("llama").train()
    scorer = Scorer(model, packing=True)
    plain = gradients(model, scorer(batch_of(PAIRS)).sum(1))
    recompute_activations(model)
    again = gradients(model, scorer(batch_of(PAIRS)).sum(1))
    assert all(torch.equal(again[name], gradient) for name, gradient in plain.items())


@pytest.mark.parametrize("family", PADDED)
def test_a_model_that_cannot_have_packed_rows_says_why_and_stays_as_it_was(family: str) -> None:
    settings, reason = PADDED[family]
    model = random_model(family, **settings)
    attention = model.config._attn_implementation
    scorer = Scorer(model, packing="auto")
    assert (scorer.packed, scorer.why_padded) == (False, reason)
    assert model.config._attn_implementation == attention
    with pytest.raises(ModelError, match=f"model.packing on: {reason}; set it to auto or off"):
        Scorer(model, packing=True)


def test_another_attention_than_sdpa_is_left_alone() -> None:
    model = random_model("llama")
    model.set_attn_implementation("eager")
    assert use_packed_attention(model) == "its attention is eager and not sdpa"
    assert why_not_packed(random_model("gemma2", head_dim=8), "sdpa") == "its attention is sdpa and not eager"


def test_capped_scores_are_capped_in_generation_too() -> None:
    """With a cache, and prompts of two lengths padded on the left, token by token as by the model itself."""
    model = random_model("gemma2", **FAMILIES["gemma2"])
    ids, seen = torch.tensor([[0, 0, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14]]), torch.ones(2, 6, dtype=torch.long)
    seen[0, :2] = 0
    asked = {"attention_mask": seen, "max_new_tokens": 8, "do_sample": False, "output_logits": True}
    truth, again = (
        torch.stack(model.generate(ids, **asked, return_dict_in_generate=True).logits)
        for use in (lambda _: None, use_packed_attention)
        if use(model) is None
    )
    assert torch.allclose(again, truth, rtol=1e-4, atol=1e-5)


def test_a_layer_that_asks_for_more_than_any_form_has_is_refused() -> None:
    query, layout = torch.randn(1, 2, 3, 8), Layout.of((Span(0, 3),), torch.device("cpu"))
    with pytest.raises(ModelError, match="packed rows know no s_aux, which Module asks for"):
        packed_attention(torch.nn.Module(), query, query, query, None, layout=layout, s_aux=query)


# Forms: spans of three pairs, with prompts of 5, 1 and 4 tokens; the last rejected answer is longer than its prompt
SPANS = (Span(0, 8), Span(8, 10, (0, 5)), Span(10, 12), Span(12, 13, (10, 11)), Span(13, 18), Span(18, 27, (13, 17)))


def attended(form: Any, window: int | None, dtype: torch.dtype, device: str = "cpu", width: int = 8) -> list[Tensor]:
    """The result and the gradients of queries, keys and values: six heads on two."""
    torch.manual_seed(0)
    whole = [torch.randn(1, heads, 27, width, dtype=torch.float64) for heads in (6, 2, 2)]
    inputs = [tensor.to(device, dtype).requires_grad_() for tensor in whole]
    layout = Layout.of(SPANS, torch.device(device))
    out = form(*inputs, layout, 0.3, window)
    weights = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(device, dtype)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]


def dense(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
    """The whole square, every pair of places looked at."""
    mask = torch.zeros(27, 27, dtype=torch.bool)
    for span in layout.spans:
        places = span.key_indices.tolist()
        for number, place in enumerate(places[len(places) - span.queries :]):
            seen = places[: len(places) - span.queries + number + 1]
            mask[place, seen if window is None else seen[-window:]] = True
    scores = query @ key.repeat_interleave(3, 1).transpose(2, 3) * scale
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return (weights @ value.repeat_interleave(3, 1)).transpose(1, 2)


def by_device(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
    return packed_attention(None, query, key, value, None, layout=layout, scaling=scale, sliding_window=window)[0]


@pytest.mark.usefixtures("cost")
@pytest.mark.parametrize("window", [None, 3, 13])
@pytest.mark.parametrize("form", [by_device, under_masks, in_padded_spans])
def test_every_form_is_attention_under_the_square_mask(form: Any, window: int | None) -> None:
    """The longest span sees 13 keys, so a window of 13 binds nowhere."""
    truth, found = (attended(one, window, torch.float64) for one in (dense, form))
    for mine, expected in zip(found, truth, strict=True):
        assert torch.allclose(mine, expected, rtol=1e-10, atol=1e-10)


def test_a_narrower_value_head_is_padded_and_cut() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 27, width, requires_grad=True) for width in (8, 8, 5))
    layout = Layout.of(SPANS, torch.device("cpu"))
    found, _ = packed_attention(None, query, key, value, None, layout=layout)
    truth = under_masks(query, key, value, layout, 8**-0.5, None)
    assert found.shape == (1, 27, 2, 5)
    assert torch.allclose(found, truth, atol=1e-5)


@pytest.mark.usefixtures("cost")
def test_bfloat16_loses_no_more_on_a_cpu_than_under_masks() -> None:
    truth, spans, masks = (
        attended(form, None, dtype)
        for form, dtype in ((dense, torch.float64), (by_device, torch.bfloat16), (under_masks, torch.bfloat16))
    )
    for expected, *both in zip(truth, spans, masks, strict=True):
        lost, usual = (float((mine.double() - expected).norm() / expected.norm()) for mine in both)
        assert lost < max(2 * usual, 1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 3])
def test_one_call_on_a_gpu_is_attention_under_masks(window: int | None) -> None:
    one, masks = (attended(form, window, torch.bfloat16, "cuda", 64) for form in (in_one_call, under_masks))
    for mine, expected in zip(one, masks, strict=True):
        assert torch.allclose(mine, expected, rtol=2e-2, atol=2e-2)
