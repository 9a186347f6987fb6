"""Summed log-probs of answers: the seam between how sequences lie in a forward pass and what a loss gets to see.

Only the outputs that predict completion tokens go through the vocabulary projection, in chunks whose logits are the
largest thing that exists. More than one chunk means that logits are computed again in the backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixdpo_ray.errors import ModelError
from mixdpo_ray.objectives.logps import PairLogps, TokenLogps
from mixdpo_ray.training.attention import padding_refused, use_packed_attention
from mixdpo_ray.training.batch import ModelInput, PairBatch
from mixdpo_ray.training.liger import use_kernels
from mixdpo_ray.training.settings import Kernels, Packing

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

# Per token, between the scored positions and the plain forward pass; other kernels differ in the last bits.
EXACTNESS = {torch.float32: 1e-3, torch.bfloat16: 0.1}

BLOCK = 1 << 23  # logits that are normalised at once


@dataclass(frozen=True)
class MicroLogps:
    easy: PairLogps
    hard_chosen: Tensor  # [hard]
    hard_length: Tensor  # [hard]


def pair_logps(policy: nn.Module, batch: PairBatch, chunks: int = 1) -> MicroLogps:
    """One forward pass. `policy` is a Scorer, or the engine around one: never the engine's `.module`."""
    tokens, lengths = policy(batch, chunks), batch.lengths
    sums = tokens.sum(1)
    easy, both = batch.easy, batch.easy + batch.hard
    pairs = PairLogps(
        chosen=sums[:easy],
        rejected=sums[both:],
        chosen_length=lengths[:easy],
        rejected_length=lengths[both:],
        margin=batch.margin,
        ref_chosen=batch.ref_chosen,
        ref_rejected=batch.ref_rejected,
        tokens=None
        if batch.ref_tokens is None
        else TokenLogps(tokens[:easy], tokens[both:], batch.ref_tokens[:easy], batch.ref_tokens[easy:]),
        step=batch.step,
    )
    return MicroLogps(pairs, sums[easy:both], lengths[easy:both])


class Scorer(nn.Module):
    """A causal language model that answers with log-probs of completion tokens [sequences, longest], in float32."""

    def __init__(self, model: PreTrainedModel, packing: Packing = False, kernels: Kernels = "none"):
        super().__init__()
        self.model = model
        self.kernels = use_kernels(model, kernels)
        self.why_padded = use_packed_attention(model) if packing else None
        self.packed = bool(packing) and self.why_padded is None
        if packing is True and self.why_padded is not None:
            raise padding_refused(self.why_padded)

    def forward(self, batch: PairBatch, chunks: int = 1, *, plainly: bool = False) -> Tensor:
        token_logps = self._plainly(batch) if plainly else self._scored(batch, chunks)
        padded = token_logps.new_zeros(len(batch.lengths) * batch.longest)
        return padded.scatter(0, batch.slots, token_logps).view(-1, batch.longest)

    def _scored(self, batch: PairBatch, chunks: int) -> Tensor:
        hidden = predicting_states(self.model, batch)
        pieces = zip(hidden.tensor_split(chunks), batch.targets.tensor_split(chunks), strict=True)
        if chunks == 1 or not torch.is_grad_enabled():
            return torch.cat([self._logps(*piece) for piece in pieces])
        again = partial(checkpoint, self._logps, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn
        return torch.cat([again(*piece) for piece in pieces])

    def _plainly(self, batch: PairBatch) -> Tensor:
        """The slow way, to compare with: the model's own forward over every position of padded rows."""
        with self.kernels.aside():
            logits = [self.model(input_ids=row.ids, use_cache=False).logits.flatten(0, 1) for row in batch.groups]
        return selected_logps(torch.cat(logits)[batch.predictors].float(), batch.targets)

    def _logps(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = vocabulary_logits(self.model, hidden)
        if logits.is_cuda:
            from mixdpo_ray.training.fused_logps import fused_logps

            return fused_logps(logits, targets)
        return selected_logps(logits.float(), targets)


def predicting_states(model: PreTrainedModel, batch: PairBatch) -> Tensor:
    """[tokens, width], the last layer's states that predict completion tokens, in the order of `targets`."""
    decoder = getattr(model, model.base_model_prefix)
    states = [decoder(**_inputs(row), use_cache=False)[0].flatten(0, 1) for row in batch.groups]
    return torch.cat(states).index_select(0, batch.predictors)


class StatesReader(nn.Module):
    """A causal language model that answers with the states that predict completion tokens."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        return predicting_states(self.model, batch)


def _inputs(row: ModelInput) -> dict[str, Any]:
    """Arguments of a decoder, which takes what has four dimensions for a finished mask: it would build a square one."""
    if row.layout is None:
        return {"input_ids": row.ids}
    no_mask = row.ids.new_empty(1, 1, 0, 0)
    return {"input_ids": row.ids, "position_ids": row.positions, "attention_mask": no_mask, "layout": row.layout}


class _Decoded:
    """Hidden states, with nothing for everything else that a decoder may return: caches, attentions, router logits."""

    def __init__(self, hidden: Tensor):
        self.last_hidden_state = hidden

    def __getitem__(self, number: int) -> Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None


class _Handover(nn.Module):
    """Stands where a model's decoder stands and hands over hidden states that were computed before."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _Decoded:
        return _Decoded(inputs_embeds)


def vocabulary_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """hidden [tokens, width] -> logits [tokens, vocabulary], by the model's own forward after its decoder.

    The projection alone would be wrong where a family scales or caps its logits (Cohere, Granite, Gemma 2).
    """
    head = copy.copy(model)
    head._modules = {**model._modules, model.base_model_prefix: _Handover()}
    logits: Tensor = type(model).forward(head, inputs_embeds=hidden[None], use_cache=False).logits.squeeze(0)
    return logits


class _SelectedLogps(torch.autograd.Function):
    """log-softmax at one token per row, with no buffer of the vocabulary's size but the logits themselves.

    For the backward pass they are turned into probabilities in place, and those into the gradient. Should anything else
    have kept the logits for its own backward pass, torch notices. (exp() of log-probs takes six times softmax's time.)
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        rows = max(1, BLOCK // logits.shape[-1])
        chosen = []
        for block, wanted in zip(torch.split(logits, rows), torch.split(targets, rows), strict=True):
            chosen.append(block.log_softmax(-1).gather(-1, wanted[:, None])[:, 0])
            if ctx.needs_input_grad[0]:
                block.copy_(block.softmax(-1))
        ctx.save_for_backward(logits, targets)
        return torch.cat(chosen)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (probabilities, targets), gradient = ctx.saved_tensors, gradients[0][:, None]
        wide = probabilities.mul_(-gradient)  # (one-hot - softmax) * gradient
        return wide.scatter_add_(-1, targets[:, None], gradient), None


def selected_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """logits [tokens, vocabulary] in float32, which are overwritten -> log-probs of targets [tokens]."""
    logps: Tensor = _SelectedLogps.apply(logits, targets)  # type: ignore[no-untyped-call]
    return logps


def check_exactness(
    policy: nn.Module,
    batch: PairBatch,
    padded: PairBatch,
    chunks: int,
    dtype: torch.dtype,
    suspects: Sequence[str] = (),
) -> None:
    """Refuse a model whose log-probs are not those of its own plain forward pass. Run once, before training.

    `padded`: the same pairs in padded rows, which alone have such a pass. `suspects`: what to set where they differ.
    """
    with torch.no_grad():
        scored, plain = policy(batch, chunks).sum(1), policy(padded, chunks, plainly=True).sum(1)
    gap = float(((scored - plain) / batch.lengths).abs().max())
    if gap <= EXACTNESS[dtype]:
        return
    remedy = (
        f"set {' or '.join(suspects)}"
        if suspects
        else ("its class does something between decoder and logits that is not supported")
    )
    raise ModelError(
        f"log-probs of completions alone differ from the model's full forward pass by {gap:.2g} per token: {remedy}"
    )
