"""Summed log-probs of answers: the seam between how sequences lie in a forward pass and what a loss gets to see.

Only the outputs that predict completion tokens go through the vocabulary projection, in chunks whose logits are the
largest thing that exists. More than one chunk means that logits are computed again in the backward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mixdpo_ray.errors import ModelError
from mixdpo_ray.objectives.logps import PairLogps, TokenLogps
from mixdpo_ray.training.attention import padding_refused, use_packed_attention
from mixdpo_ray.training.batch import PairBatch
from mixdpo_ray.training.liger import use_kernels
from mixdpo_ray.training.model import load_model
from mixdpo_ray.training.packed_rows import ModelInput
from mixdpo_ray.training.router_balance import RoutedTokens, router_balance
from mixdpo_ray.training.selected_logps import mean_of_draws, selected_logps
from mixdpo_ray.training.sequence_ranks import SequenceRanks, refuse_unshared
from mixdpo_ray.training.settings import Kernels, ModelSettings, Packing
from mixdpo_ray.training.world import World

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

# Per token, between the scored positions and the plain forward pass; other kernels differ in the last bits.
EXACTNESS = {torch.float32: 1e-3, torch.bfloat16: 0.1}


@dataclass(frozen=True)
class MicroLogps:
    easy: PairLogps
    hard: PairLogps  # those that an objective trains
    hard_chosen: Tensor  # [those that SFT trains]
    hard_length: Tensor
    routed: RoutedTokens | None = None  # where it is asked for


def pair_logps(policy: nn.Module, batch: PairBatch, chunks: int = 1, *, routed: bool = False) -> MicroLogps:
    """One forward pass. `policy` is a Scorer, or the engine around one: never the engine's `.module`.

    `routed`: also what its routers did, of a model that has a balance to keep.
    """
    found = policy(batch, chunks, routed=True) if routed else (policy(batch, chunks), None)
    (scored, routers), lengths = found, batch.lengths
    tokens, drawn = _apart(scored)
    sums = tokens.sum(1)
    typical = None if drawn is None else ((tokens - drawn).sum(1) / lengths).detach()
    pairs = batch.easy + batch.hard_pairs
    alone = slice(pairs, pairs + batch.hard)

    def both(first: int, last: int) -> PairLogps:
        """The pairs so numbered among those with both answers."""
        at, behind = slice(first, last), slice(alone.stop + first, alone.stop + last)
        reference = batch.ref_tokens
        return PairLogps(
            chosen=sums[at],
            rejected=sums[behind],
            chosen_length=lengths[at],
            rejected_length=lengths[behind],
            margin=batch.margin[at],
            ref_chosen=None if batch.ref_chosen is None else batch.ref_chosen[at],
            ref_rejected=None if batch.ref_rejected is None else batch.ref_rejected[at],
            tokens=None
            if reference is None
            else TokenLogps(tokens[at], tokens[behind], reference[at], reference[pairs + first : pairs + last]),
            chosen_typicality=None if typical is None else typical[at],
            rejected_typicality=None if typical is None else typical[behind],
        )

    easy = replace(both(0, batch.easy), step=batch.step)
    return MicroLogps(easy, both(batch.easy, pairs), sums[alone], lengths[alone], routers)


def _apart(found: Tensor) -> tuple[Tensor, Tensor | None]:
    """Log-probs of tokens, and what the policy's own draws have in the mean there, if that was asked for."""
    return (found[0], found[1]) if found.dim() == 3 else (found, None)


class Scorer(nn.Module):
    """A causal language model that answers with log-probs of completion tokens [sequences, longest], in float32."""

    def __init__(
        self,
        model: PreTrainedModel,
        packing: Packing = False,
        kernels: Kernels = "none",
        ranks: SequenceRanks | None = None,
    ):
        super().__init__()
        self.model = model
        self.reads_typicality = False
        self.ranks = ranks  # with which it shares rows
        self.kernels = use_kernels(model, kernels)
        self.why_padded = use_packed_attention(model) if packing else None
        self.packed = bool(packing) and self.why_padded is None
        self.balance = router_balance(model)
        if packing is True and self.why_padded is not None:
            raise padding_refused(self.why_padded)
        if ranks is not None:
            config = model.config.get_text_config()
            heads = config.num_attention_heads
            key_heads = getattr(config, "num_key_value_heads", None) or heads
            refuse_unshared((heads, key_heads), self.why_padded, ranks.count)

    @classmethod
    def load(cls, settings: ModelSettings, world: World, *, recompute: bool) -> Self:
        """Collective: the model to be trained, whose rows the ranks of the world share as it says."""
        ranks = SequenceRanks(world) if world.sequence_parallel > 1 else None
        return cls(load_model(settings, recompute=recompute), settings.packing, settings.kernels, ranks)

    def forward(
        self, batch: PairBatch, chunks: int = 1, *, plainly: bool = False, routed: bool = False
    ) -> Tensor | tuple[Tensor | None, RoutedTokens]:
        """Log-probs, with `routed` beside them what the routers did; that alone where no `chunks` are wanted.

        Where `reads_typicality` is set, log-probs stand above what the policy's own draws have in the mean: [2, ...].
        """
        if plainly:
            return self._side_by_side(self._plainly(batch), batch)
        if not routed:
            states = predicting_states(self.model, batch, self.ranks)
            return self._of_all_ranks(self._scored(states, batch, chunks), batch)
        states, layers = routed_states(self.model, batch, self.ranks)
        assert self.balance is not None
        routers = self.balance.routed(layers, batch.groups)
        return (self._of_all_ranks(self._scored(states, batch, chunks), batch) if chunks else None), routers

    def _of_all_ranks(self, token_logps: Tensor, batch: PairBatch) -> Tensor:
        own = self._side_by_side(token_logps, batch)
        return own if self.ranks is None else self.ranks.summed(own)

    def _side_by_side(self, found: Tensor, batch: PairBatch) -> Tensor:
        padded = found.new_zeros(*found.shape[:-1], len(batch.lengths) * batch.longest)
        padded = padded.scatter(-1, batch.slots.expand_as(found), found)
        return padded.view(*found.shape[:-1], -1, batch.longest)

    def _scored(self, hidden: Tensor, batch: PairBatch, chunks: int) -> Tensor:
        pieces = zip(hidden.tensor_split(chunks), batch.targets.tensor_split(chunks), strict=True)
        if chunks == 1 or not torch.is_grad_enabled():
            return torch.cat([self._logps(*piece) for piece in pieces], -1)
        again = partial(checkpoint, self._logps, use_reentrant=False, preserve_rng_state=self._head_draws)
        return torch.cat([again(*piece) for piece in pieces], -1)

    @property
    def _head_draws(self) -> bool:
        """Whether the vocabulary projection has an adapter with dropout, which must drop the same when run again."""
        head = self.model.get_output_embeddings()
        return head is not None and any(isinstance(one, nn.Dropout) and one.p for one in head.modules())

    def _plainly(self, batch: PairBatch) -> Tensor:
        """The slow way, to compare with: the model's own forward over every position of padded rows."""
        with self.kernels.aside():
            logits = [self.model(input_ids=row.ids, use_cache=False).logits.flatten(0, 1) for row in batch.groups]
        return selected_logps(torch.cat(logits)[batch.predictors].float(), batch.targets)

    def _logps(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = vocabulary_logits(self.model, hidden)
        drawn = mean_of_draws(logits) if self.reads_typicality else None  # first: the log-probs overwrite the logits
        if logits.is_cuda:
            from mixdpo_ray.training.fused_logps import fused_logps

            logps = fused_logps(logits, targets)
        else:
            logps = selected_logps(logits.float(), targets)
        return logps if drawn is None else torch.stack([logps, drawn])


def predicting_states(model: PreTrainedModel, batch: PairBatch, ranks: SequenceRanks | None = None) -> Tensor:
    """[tokens, width], the last layer's states that predict completion tokens, in the order of `targets`."""
    return _predicting([_decoded(model, row, ranks)[0] for row in batch.groups], batch)


def routed_states(
    model: PreTrainedModel, batch: PairBatch, ranks: SequenceRanks | None
) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
    """The same, and of each row the logits of every layer's router."""
    decoded = [_decoded(model, row, ranks, output_router_logits=True) for row in batch.groups]
    return _predicting([one[0] for one in decoded], batch), [one.router_logits for one in decoded]


def _decoded(model: PreTrainedModel, row: ModelInput, ranks: SequenceRanks | None, **options: bool) -> Any:
    return getattr(model, model.base_model_prefix)(**_inputs(row, ranks), use_cache=False, **options)


def _predicting(states: Sequence[Tensor], batch: PairBatch) -> Tensor:
    return torch.cat([one.flatten(0, 1) for one in states]).index_select(0, batch.predictors)


class StatesReader(nn.Module):
    """A causal language model that answers with the states that predict completion tokens."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, batch: PairBatch) -> Tensor:
        return predicting_states(self.model, batch)


def _inputs(row: ModelInput, ranks: SequenceRanks | None) -> dict[str, Any]:
    """Arguments of a decoder, which takes what has four dimensions for a finished mask: it would build a square one."""
    assert row.row_slice.of == (1 if ranks is None else ranks.count), "ranks that share rows run a slice each"
    if row.layout is None:
        return {"input_ids": row.ids}
    no_mask = row.ids.new_empty(1, 1, 0, 0)
    shared = {} if ranks is None else {"ranks": ranks}
    given = {"input_ids": row.ids, "position_ids": row.positions, "attention_mask": no_mask, "layout": row.layout}
    return {**given, **shared}


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
        scored, plain = _apart(policy(batch, chunks))[0].sum(1), policy(padded, chunks, plainly=True).sum(1)
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
