"""Attention over packed rows (packed_rows.py): one function that transformers' models call, which follows a layout.

The layout is an argument of the forward pass. Without one the function is transformers' own `sdpa`, so that generation
and padded rows are what they were, and a layer that is run again in the backward pass finds the same as before. Where
scores are capped, as in Gemma 2, which no kernel knows, products are written out with a layout and without.
Four forms give the same numbers but for rounding:

    one call        on a GPU in bfloat16: a kernel for sequences of unequal lengths, keys and values gathered for each
    spans           on a CPU: the CPU's kernel on each span; a rejected answer calls it for the prompt and for itself,
                    and the two are merged by their log-sum-exp, which is exact, forwards and backwards
    padded spans    on a CPU where they are so short that a call each costs more than padding: all of them in one
    masks           everything else, capped scores among it: attention on each span, under a mask
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.packed_rows import Layout

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

    from mixdpo_ray.training.sequence_ranks import SequenceRanks

PACKED_ATTENTION = "packed_rows"  # as transformers knows it; it would look for sdpa in a name that says so
KNOWN_LAYERS = {"full_attention", "sliding_attention"}
REFUSED = ("s_aux", "position_bias", "alibi")  # what a layer may ask for, and no form has
CALL = 60_000  # products of a head's width that take as long as a span's calls of the CPU's kernel, both ways
WIDEST_HEAD = 256  # of the GPU's kernel


def use_packed_attention(model: PreTrainedModel) -> str | None:
    """Let a model attend as a layout says. Otherwise the reason why it cannot, and the model is as it was."""
    reason = why_not_packed(model, model.config._attn_implementation)
    if reason is None:
        _register()
        model.set_attn_implementation(PACKED_ATTENTION)
    return reason


def why_not_packed(model: PreTrainedModel, attention: str) -> str | None:
    """The reason why a model cannot have packed rows, if any. `attention`: as transformers knows what it attends by."""
    config, name = model.config.get_text_config(), type(model).__name__
    other = set(getattr(config, "layer_types", None) or ()) - KNOWN_LAYERS
    if not model._supports_attention_backend:
        return f"{name} does not go through transformers' attention interface"
    if other:
        return f"{name} has layers of {', '.join(sorted(other))}"
    if any(hasattr(module, "sinks") for module in model.modules()):
        return f"{name} has attention sinks"
    usual = "sdpa" if getattr(config, "attn_logit_softcapping", None) is None else "eager"  # which alone can cap
    if attention != usual:
        return f"its attention is {attention} and not {usual}"
    return None


def padding_refused(why: str) -> ModelError:
    """An error for a recipe that insists on packed rows."""
    return ModelError(f"model.packing on: {why}; set it to auto or off, and rows are padded")


def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    layout: Layout | None = None,
    ranks: SequenceRanks | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """[1, heads, tokens, width] each, of keys and values perhaps fewer heads -> [1, tokens, heads, width].

    With `ranks`, which share the row, the tokens are those of a slice of it.
    """
    if ranks is not None and layout is not None:
        whole = {"scaling": scaling, "sliding_window": sliding_window, "softcap": softcap, "layout": layout, **others}

        def of_row(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return packed_attention(module, query, key, value, None, **whole)[0]

        return ranks.attend(of_row, query, key, value, layout.tokens), None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if layout is None and softcap is not None:
        shared = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
        mask = _mask(query, key, None) if attention_mask is None else attention_mask
        return _capped(query, key, value, mask, scale, softcap).transpose(1, 2).contiguous(), None
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, sliding_window=sliding_window, **others
        )
        return plain
    if asked := [name for name in REFUSED if others.get(name) is not None]:
        raise ModelError(
            f"packed rows know no {asked[0]}, which {type(module).__name__} asks for: set model.packing off"
        )
    window = sliding_window if sliding_window is not None and sliding_window < layout.longest_keys else None
    width = value.shape[-1]
    if width < query.shape[-1]:
        value = functional.pad(value, (0, query.shape[-1] - width))
    if softcap is not None:
        out = under_masks(query, key, value, layout, scale, window, softcap)
    elif query.is_cuda and query.dtype == torch.bfloat16 and query.shape[-1] <= WIDEST_HEAD:
        out = in_one_call(query, key, value, layout, scale, window)
    elif query.device.type == "cpu" and _calls_cost_more(query, layout):
        out = in_padded_spans(query, key, value, layout, scale, window)
    elif query.device.type == "cpu" and window is None:
        out = _InSpans.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    else:
        out = under_masks(query, key, value, layout, scale, window)
    return out[..., :width], None


def in_one_call(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, window: int | None) -> Tensor:
    """Causal from the end of the keys, as kernels for unequal lengths have it."""
    own = query[0].transpose(0, 1)
    seen = (tensor[0].transpose(0, 1).index_select(0, layout.key_indices) for tensor in (key, value))
    out: Tensor = torch.ops.aten._flash_attention_forward(
        own, *seen, layout.queries, layout.keys, layout.longest_queries, layout.longest_keys,
        0.0, window is None, False,  # no dropout; causal; without the mask that dropout drew
        scale=scale, window_size_left=-1 if window is None else window - 1, window_size_right=0,
    )[0]  # fmt: skip
    return out[None]


def under_masks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    window: int | None,
    softcap: float | None = None,
) -> Tensor:
    shared = query.shape[1] // key.shape[1]  # queries to a key
    seen = (tensor.index_select(2, layout.key_indices).repeat_interleave(shared, 1) for tensor in (key, value))
    queries, keys = [span.queries for span in layout.spans], [span.keys for span in layout.spans]
    of_spans = zip(torch.split(query, queries, 2), *(torch.split(tensor, keys, 2) for tensor in seen), strict=True)
    found = []
    for own, key, value in of_spans:
        mask = _mask(own, key, window)
        if softcap is None:
            found.append(functional.scaled_dot_product_attention(own, key, value, attn_mask=mask, scale=scale))
        else:
            found.append(_capped(own, key, value, mask, scale, softcap))
    return torch.cat(found, 2).transpose(1, 2)


def _calls_cost_more(query: Tensor, layout: Layout) -> bool:
    """Whether the padding of spans to the longest takes less time than a call for each, forwards and backwards."""
    padding = len(layout.spans) * layout.longest_queries * layout.longest_keys - layout.seen
    return padding * query.shape[1] * query.shape[3] < CALL * len(layout.spans)


def in_padded_spans(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float, window: int | None
) -> Tensor:
    spans, shared = layout.padded_spans, query.shape[1] // key.shape[1]

    def batch(tensor: Tensor, indices: Tensor) -> Tensor:
        found = tensor[0].index_select(1, indices)
        return found.view(len(found), len(layout.spans), -1, found.shape[-1]).transpose(0, 1)

    own = batch(query, spans.queries)
    keys, values = (batch(tensor, spans.keys) for tensor in (key, value))
    if shared > 1:
        keys, values = (tensor.repeat_interleave(shared, 1) for tensor in (keys, values))
    mask = spans.behind <= 0 if window is None else (spans.behind <= 0) & (spans.behind > -window)
    found = functional.scaled_dot_product_attention(own, keys, values, attn_mask=mask, scale=scale)
    return found.transpose(1, 2).flatten(0, 1).index_select(0, spans.results)[None]


def _capped(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float, softcap: float) -> Tensor:
    """Attention whose scores cannot leave [-softcap, softcap], under a mask of what a query sees."""
    scores = torch.tanh(query @ key.transpose(2, 3) * (scale / softcap)) * softcap
    weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1, torch.float32)
    return weights.to(query.dtype) @ value


def _mask(query: Tensor, key: Tensor, window: int | None) -> Tensor:
    """Which keys a query sees [queries, keys]: the last query the last key, and `window` of them at most."""
    queries, keys = query.shape[2], key.shape[2]
    mask = torch.ones(queries, keys, dtype=torch.bool, device=query.device).tril(keys - queries)
    return mask if window is None else mask.triu(keys - queries - window + 1)


class _InSpans(torch.autograd.Function):
    """The CPU's attention kernel, called for each span and for the prompt before it.

    A merged result and its log-sum-exp are what one call over all keys would have given, so the kernel's own backward
    pass, told these, gives each part's share of the gradient. A token gets two addends at most: no order matters.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out = query.new_empty(query.transpose(1, 2).shape)
        sums = query.new_empty(out.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        for span in layout.spans:
            own = slice(span.start, span.stop)
            found = kernel(query[:, :, own], key[:, :, own], value[:, :, own], is_causal=True, scale=scale)
            if span.prompt is not None:
                before = slice(*span.prompt)
                found = _merged(found, kernel(query[:, :, own], key[:, :, before], value[:, :, before], scale=scale))
            out[:, own], sums[:, own] = (tensor.transpose(1, 2) for tensor in found)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        gradient, out, sums = (tensor.transpose(1, 2) for tensor in (*gradients, *kept))
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        of_query, of_key, of_value = (torch.empty_like(tensor) for tensor in (query, key, value))

        def shares(own: slice, seen: slice, *, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
            found: tuple[Tensor, Tensor, Tensor] = kernel(
                gradient[:, :, own], query[:, :, own], key[:, :, seen], value[:, :, seen], out[:, :, own],
                sums[:, :, own], 0.0, causal, scale=ctx.scale,
            )  # fmt: skip
            return found

        for span in ctx.layout.spans:
            own = slice(span.start, span.stop)
            of_query[:, :, own], of_key[:, :, own], of_value[:, :, own] = shares(own, own, causal=True)
            if span.prompt is not None:
                before = slice(*span.prompt)
                for whole, indices, share in zip(
                    (of_query, of_key, of_value), (own, before, before), shares(own, before, causal=False), strict=True
                ):
                    whole[:, :, indices] += share
        return of_query, of_key, of_value, None, None


def _merged(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Attention over two sets of keys, from the attention over each and the log of its sum of exponentials."""
    sums = torch.logaddexp(one[1], other[1])
    out = sum(out.to(sums.dtype) * (part - sums).exp()[..., None] for out, part in (one, other))
    assert isinstance(out, Tensor)
    return out.to(one[0].dtype), sums
