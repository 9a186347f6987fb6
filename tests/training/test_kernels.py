"""Kernels that need a GPU: what they compute there, and what is said where there is none."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from transformers.models.qwen2 import modeling_qwen2

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.logps import Scorer
from tests.training.families import random_model

GPU = torch.cuda.is_available()
LIGER = GPU and importlib.util.find_spec("liger_kernel") is not None


@pytest.mark.skipif(not GPU, reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(0, 11), (5, 7), (3, 4096), (40, 151_936)])
def test_fused_log_probs_and_their_gradient_are_the_exact_ones(dtype: torch.dtype, rows: int, width: int) -> None:
    from mixdpo_ray.training.fused_logps import fused_logps

    logits = (5 * torch.randn(rows, width, device="cuda")).to(dtype).requires_grad_()
    targets, weights = torch.randint(0, width, (rows,), device="cuda"), torch.randn(rows, device="cuda")
    exact = logits.double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    (expected,) = torch.autograd.grad((exact * weights).sum(), logits)
    fused = fused_logps(logits * 1, targets)  # a copy: it is overwritten
    (found,) = torch.autograd.grad((fused * weights).sum(), logits)
    rounding = 1e-5 if dtype == torch.float32 else 5e-3
    assert torch.allclose(fused.double(), exact, atol=1e-4)
    assert float((found - expected).norm()) <= rounding * float(expected.norm())


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_whoever_needs_logits_that_were_overwritten_is_stopped() -> None:
    from mixdpo_ray.training.fused_logps import fused_logps

    logits = torch.randn(4, 9, device="cuda", requires_grad=True).tanh()  # tanh keeps its result
    loss = fused_logps(logits, torch.zeros(4, dtype=torch.int64, device="cuda")).sum()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(loss)


@pytest.mark.skipif(GPU, reason="needs a machine without a GPU")
def test_liger_is_refused_without_a_gpu() -> None:
    with pytest.raises(ModelError, match=r"model\.kernels liger needs a GPU, and there is none here: set it to none"):
        Scorer(random_model("qwen2"), kernels="liger")


@pytest.mark.skipif(not LIGER, reason="needs a GPU and liger-kernel")
def test_liger_s_kernels_can_be_set_aside_and_taken_back() -> None:
    model: Any = random_model("qwen2").cuda()
    ids = torch.arange(12, device="cuda")[None]
    family, expected = dict(vars(modeling_qwen2)), model(input_ids=ids).logits
    scorer = Scorer(model, kernels="liger")
    replaced = model(input_ids=ids).logits
    assert not torch.equal(replaced, expected)
    assert torch.allclose(replaced, expected, atol=1e-3)
    with scorer.kernels.aside():
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert torch.equal(model(input_ids=ids).logits, replaced)
    scorer.kernels.remove()
    assert torch.equal(model(input_ids=ids).logits, expected)
    assert vars(modeling_qwen2) == family


@pytest.mark.skipif(not LIGER, reason="needs a GPU and liger-kernel")
def test_a_family_without_liger_s_kernels_is_named() -> None:
    with pytest.raises(ModelError, match="Liger has no kernels for gpt_neox models"):
        Scorer(random_model("gpt_neox").cuda(), kernels="liger")
