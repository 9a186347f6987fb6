"""Scores against a plain full forward pass, over model families, chunks and layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.batch import PairBatch, answer_tokens, padded_predictors, padded_together
from mixdpo_ray.training.logps import Scorer, check_exactness, pair_logps
from mixdpo_ray.training.packed_rows import ModelInput
from mixdpo_ray.training.selected_logps import selected_logps
from tests.training.families import naive, random_model

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "mistral": {"sliding_window": 6},
    "gemma2": {"head_dim": 8, "final_logit_softcapping": 0.5, "sliding_window": 4},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 3.0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}


def model_of(family: str) -> Any:
    return random_model(family, **FAMILIES[family])


def batch_of(prompts: list[list[int]], completions: list[list[int]], easy: int, hard: int = 0) -> PairBatch:
    before, after = ([np.array(tokens, np.int32) for tokens in side] for side in (prompts, completions))
    groups = [np.array(rows) for rows in ([1, 4], [0, 2, 3])[: len(prompts)]] if len(prompts) > 1 else [np.array([0])]
    arrays: dict[str, Any] = {name: torch.from_numpy(array) for name, array in answer_tokens(after).items()}
    return PairBatch(
        groups=tuple(ModelInput(torch.from_numpy(padded_together(before, after, rows, padding=0))) for rows in groups),
        predictors=torch.from_numpy(padded_predictors(before, after, groups)),
        **arrays, longest=max(map(len, completions)),
        easy=easy, hard=hard, margin=torch.zeros(easy), ref_chosen=None, ref_rejected=None, weight=1,
    )  # fmt: skip


PROMPTS = [[3, 4], [5, 6, 7, 8, 9, 10, 11, 12], [5], [3, 4], [5, 6, 7, 8, 9, 10, 11, 12]]
ANSWERS = [[10, 11, 12, 2], [2], [20, 21, 22], [30, 31], [13, 14, 15, 16, 17, 18, 2]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("chunks", [1, 3])
def test_sums_and_gradients_are_those_of_each_sequence_alone_in_a_full_forward(family: str, chunks: int) -> None:
    """Two easy pairs and a hard one: five sequences in two groups, prompts of 1 to 8 tokens."""
    model = model_of(family)
    scorer, batch = Scorer(model), batch_of(PROMPTS, ANSWERS, easy=2, hard=1)
    truth = torch.stack([naive(model, *sequence) for sequence in zip(PROMPTS, ANSWERS, strict=True)])
    weights = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0])
    torch.autograd.backward((truth * weights).sum())
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    found = scorer(batch, chunks).sum(1)
    torch.autograd.backward((found * weights).sum())
    assert torch.allclose(found, truth, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        if name in expected:
            assert torch.allclose(parameter.grad, expected[name], rtol=1e-3, atol=1e-4), name


def test_the_projection_alone_would_be_wrong_where_a_family_scales_its_logits() -> None:
    """What the head's own forward protects from: Granite divides its logits by 8."""
    model = model_of("granite")
    hidden = model.model(torch.tensor([[3, 4, 5]])).last_hidden_state
    assert not torch.allclose(model.lm_head(hidden), model(torch.tensor([[3, 4, 5]])).logits, atol=1e-2)


def test_pairs_are_told_apart_by_their_place() -> None:
    """chosen of easy pairs, chosen of hard pairs, rejected of easy pairs."""
    model = model_of("llama")
    batch = batch_of(PROMPTS, ANSWERS, easy=2, hard=1)
    with torch.no_grad():
        logps = pair_logps(Scorer(model), batch)
        truth = [float(naive(model, *sequence)) for sequence in zip(PROMPTS, ANSWERS, strict=True)]
    assert logps.easy.chosen.tolist() == pytest.approx(truth[:2], abs=1e-4)
    assert logps.hard_chosen.tolist() == pytest.approx(truth[2:3], abs=1e-4)
    assert logps.easy.rejected.tolist() == pytest.approx(truth[3:], abs=1e-4)
    assert logps.easy.chosen_length.tolist() == [4, 1]
    assert logps.hard_length.tolist() == [3]
    assert logps.easy.rejected_length.tolist() == [2, 7]


@pytest.mark.parametrize("chunks", [1, 3])
def test_how_typical_answers_are_is_measured_by_the_policy_s_own_probabilities(chunks: int) -> None:
    """Token by token log p - log of the sum of p squared over the vocabulary, and nothing else has changed."""
    model = model_of("gemma2")
    scorer, batch = Scorer(model), batch_of(PROMPTS, ANSWERS, easy=2, hard=1)
    scorer.reads_typicality = True
    typical = pair_logps(scorer, batch, chunks)
    check_exactness(scorer, batch, batch, chunks, torch.float32)
    expected = []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        logps = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1)
        wanted = logps.gather(-1, torch.tensor(answer)[:, None])[:, 0] - logps.exp().square().sum(-1).log()
        expected.append(wanted.mean().item())
    assert typical.easy.chosen_typicality is not None
    assert typical.easy.rejected_typicality is not None
    assert typical.easy.chosen_typicality.tolist() == pytest.approx(expected[:2], abs=1e-5)
    assert typical.easy.rejected_typicality.tolist() == pytest.approx(expected[3:], abs=1e-5)
    assert not typical.easy.chosen_typicality.requires_grad

    slopes = []
    for found in (typical, pair_logps(Scorer(model), batch, chunks)):
        model.zero_grad()
        torch.autograd.backward((found.easy.chosen - 2 * found.easy.rejected).sum() + found.hard_chosen.sum())
        slopes.append(model.lm_head.weight.grad.clone())
    torch.testing.assert_close(*slopes)


def test_a_forward_that_is_not_the_models_own_is_refused() -> None:
    class Louder(type(model_of("llama"))):  # type: ignore[misc]
        """Does something to its logits, but only where it is not asked through hidden states."""

        def forward(self, *arguments: Any, input_ids: Any = None, **others: Any) -> Any:
            output = super().forward(*arguments, input_ids=input_ids, **others)
            if input_ids is not None:
                output.logits = output.logits * 2
            return output

    model = model_of("llama")
    batch = batch_of(PROMPTS, ANSWERS, easy=2, hard=1)
    check_exactness(Scorer(model), batch, batch, 2, torch.float32)
    model.__class__ = Louder
    with pytest.raises(ModelError, match=r"differ from the model's full forward pass by .* its class does something"):
        check_exactness(Scorer(model), batch, batch, 2, torch.float32)


def test_the_fused_log_softmax_has_the_plain_one_s_value_and_gradient() -> None:
    logits = torch.randn(7, 11, requires_grad=True)
    targets = torch.tensor([0, 10, 3, 3, 5, 1, 9])
    weights = torch.randn(7)
    plain = logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    (expected,) = torch.autograd.grad((plain * weights).sum(), logits)
    fused = selected_logps(logits * 1, targets)  # a copy: it is overwritten
    (found,) = torch.autograd.grad((fused * weights).sum(), logits)
    assert torch.allclose(fused, plain, atol=1e-6)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_chunk_may_be_empty() -> None:
    """Under ZeRO-3 a rank with three tokens still runs the five chunks of another rank."""
    scorer, batch = Scorer(model_of("llama")), batch_of([[3]], [[4, 5, 6]], easy=0, hard=1)
    assert torch.allclose(scorer(batch, 5), scorer(batch, 1), atol=1e-6)
