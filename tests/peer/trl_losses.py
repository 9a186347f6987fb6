"""TRL's own loss code on log-probs that are given: real trainers, whose model a script replaces for one call.

The functions run in a process of their own, where trainers are built once, and take and return plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from tests.peer.batch import Batch, Found
from tests.peer.peer import TokenisedCPO, TokenisedDPO, arguments
from tests.peer.setup import Row, Setup

WORD, PADDING = 1, 0  # every real token is the same word


class _Script:
    """A batch's chosen and rejected sequences, and in place of a forward pass the log-probs written down for them."""

    def __init__(self, batch: Batch) -> None:
        prompts = [torch.tensor(prompt) for prompt in [*batch.prompts, *batch.prompts]]
        self.answers = [torch.tensor(answer, requires_grad=True) for answer in [*batch.chosen, *batch.rejected]]
        texts = [torch.cat(pair) for pair in zip(prompts, self.answers, strict=True)]
        self.logps = pad_sequence(texts, batch_first=True, padding_value=-1.0)  # a certain word would have no odds
        # every sequence has one token more than log-probs, its first
        ones = [torch.ones(len(text) + 1, dtype=torch.long) for text in texts]
        self.attention_mask = pad_sequence(ones, batch_first=True)
        self.input_ids = torch.where(self.attention_mask == 1, WORD, PADDING)
        places = torch.arange(self.input_ids.shape[1])
        starts = torch.tensor([len(prompt) + 1 for prompt in prompts])
        self.completion_mask = self.attention_mask * (places >= starts[:, None])

    def __call__(self, input_ids: Tensor, labels: Tensor | None = None, **_: Any) -> SimpleNamespace:
        if labels is None:  # two words, one of which has the log-prob that is wanted
            logits = torch.stack([torch.log(-torch.expm1(self.logps)), self.logps], dim=-1)
            return SimpleNamespace(logits=torch.cat([logits, logits[:, -1:]], dim=1))
        zeros = torch.zeros_like(self.logps)  # for what is only logged
        log_probs = torch.where(labels[:, 1:] == -100, zeros, self.logps)
        squares = log_probs.exp().square() + (1 - log_probs.exp()).square()  # of two words
        return SimpleNamespace(
            log_sum_sq_probs=squares.log(), log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
        )  # fmt: skip

    def found(self, loss: Tensor) -> Found:
        """A loss that reads sums has one derivative by all tokens of an answer, and it is the one by their sum."""
        slopes = torch.autograd.grad(loss, self.answers, allow_unused=True, materialize_grads=True)
        means = [slope.mean().item() for slope in slopes]
        return Found(loss.item(), means[: len(means) // 2], means[len(means) // 2 :])


def dpo_loss(
    folder: Path,
    batch: Batch,
    *loss_types: str,
    beta: float,
    label_smoothing: float = 0.0,
    weights: Sequence[float] = (1.0,),
    discopop_tau: float = 0.05,
    **attributes: Any,
) -> Found:
    """`attributes`: of the trainer, beside those that every loss has."""
    script, trainer = _Script(batch), _dpo(folder)
    inputs = {
        "input_ids": script.input_ids,
        "attention_mask": script.attention_mask,
        "completion_mask": script.completion_mask,
        "ref_chosen_logps": torch.tensor(batch.ref_chosen),
        "ref_rejected_logps": torch.tensor(batch.ref_rejected),
    }
    settings: dict[str, Any] = {
        "loss_types": loss_types, "loss_weights": weights, "beta": beta, "label_smoothing": label_smoothing,
        "precompute_ref_logps": True, **attributes,
    }  # fmt: skip
    with patch.multiple(trainer, **settings), patch.object(trainer.args, "discopop_tau", discopop_tau):
        return script.found(trainer._compute_loss(script, inputs, return_outputs=False))


def kto_loss(
    folder: Path, batch: Batch, mismatched: Sequence[float], beta: float, weights: tuple[float, float] = (1.0, 1.0)
) -> Found:
    """`mismatched`: log-ratios of foreign answers, of which TRL makes z."""
    script, trainer = _Script(batch), _kto(folder)
    inputs = {
        "input_ids": script.input_ids,
        "attention_mask": script.attention_mask,
        "completion_mask": script.completion_mask,
        "label": torch.arange(len(script.answers)) < len(batch.chosen),
        "ref_logps": torch.tensor([*batch.ref_chosen, *batch.ref_rejected]),
        "ref_KL_logps": torch.zeros(len(mismatched)),
    }
    settings: dict[str, Any] = {
        "beta": beta, "desirable_weight": weights[0], "undesirable_weight": weights[1], "precompute_ref_logps": True,
        "_compute_kl_logps": lambda *_: torch.tensor(mismatched),
    }  # fmt: skip
    with patch.multiple(trainer, **settings):
        return script.found(trainer._compute_loss(script, inputs, return_outputs=False))


def cpo_loss(
    folder: Path,
    batch: Batch,
    loss_type: str,
    beta: float,
    cpo_alpha: float,
    simpo_gamma: float = 0.0,
    alpha: float = 0.0,
) -> Found:
    script, trainer = _Script(batch), _cpo(folder)
    settings: dict[str, Any] = {
        "loss_type": loss_type,
        "beta": beta,
        "cpo_alpha": cpo_alpha,
        "simpo_gamma": simpo_gamma,
        "alpha": alpha,
    }
    with patch.multiple(trainer, **settings):
        return script.found(trainer.get_batch_loss_metrics(script, _apart(script))[0])


def orpo_loss(folder: Path, batch: Batch, beta: float) -> Found:
    script, trainer = _Script(batch), _orpo(folder)
    with patch.object(trainer, "beta", beta):
        return script.found(trainer.get_batch_loss_metrics(script, _apart(script))[0])


def orpo_odds_loss(folder: Path, batch: Batch, beta: float) -> Found:
    """The part of ORPO that compares the answers, without the likelihood."""
    script, trainer = _Script(batch), _orpo(folder)
    means = torch.stack([answer.mean() for answer in script.answers])
    with patch.object(trainer, "beta", beta):
        return script.found(-trainer.odds_ratio_loss(*means.chunk(2))[0].mean())


def simpo_step(folder: Path, setup: Setup, gamma_beta_ratio: float) -> tuple[float, list[float]]:
    """The loss that TRL reports of one optimizer step, and the gradient of the last layer."""
    seen: list[float] = []

    class Gradient(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            seen.extend(model.lm_head.weight.grad.flatten().tolist())

    unclipped = {**arguments(setup, folder / "step"), "max_grad_norm": 0.0}
    config = CPOConfig(
        **unclipped, loss_type="simpo", cpo_alpha=0.0, beta=setup.beta,
        simpo_gamma=gamma_beta_ratio * setup.beta, max_length=4096,
    )  # fmt: skip
    trainer = _built(TokenisedCPO, config, setup.model, setup.rows)
    trainer.micro_losses = []
    trainer.add_callback(Gradient())
    return trainer.train().training_loss, seen


def _apart(script: _Script) -> dict[str, Tensor]:
    """The batch as TRL's older trainers take it."""
    labels = script.input_ids.masked_fill(script.completion_mask == 0, -100)
    columns = {"input_ids": script.input_ids, "attention_mask": script.attention_mask, "labels": labels}
    halves = {name: column.chunk(2) for name, column in columns.items()}
    return {f"{side}_{name}": halves[name][at] for at, side in enumerate(("chosen", "rejected")) for name in halves}


class _TokenisedKTO(KTOTrainer):  # type: ignore[misc]
    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


class _TokenisedORPO(ORPOTrainer):  # type: ignore[misc]
    tokenize_row = TokenisedCPO.tokenize_row


@cache
def _dpo(folder: Path) -> Any:
    return _built(TokenisedDPO, DPOConfig(**_arguments(folder)), folder / "model", [_ROW])


@cache
def _kto(folder: Path) -> Any:
    return _built(_TokenisedKTO, KTOConfig(**_arguments(folder)), folder / "model", [_ROW])


@cache
def _cpo(folder: Path) -> Any:
    return _built(
        TokenisedCPO, CPOConfig(**_arguments(folder), loss_type="simpo", max_length=64), folder / "model", [_ROW]
    )


@cache
def _orpo(folder: Path) -> Any:
    return _built(_TokenisedORPO, ORPOConfig(**_arguments(folder), max_length=64), folder / "model", [_ROW])


_ROW: Row = {"prompt_ids": [1, 3], "chosen_ids": [4], "rejected_ids": [5]}  # a trainer wants to have one


def _arguments(folder: Path) -> dict[str, Any]:
    return arguments(Setup(folder / "model", [_ROW], 0.0, 2, 2, 1), folder / "trl")


def _built(kind: type[Any], config: Any, path: Path, rows: Sequence[Row]) -> Any:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    texts = {"prompt": "-", "chosen": "-", "rejected": "-"}
    dataset = Dataset.from_list([{**row, **texts} for row in rows])
    return kind(model=model, args=config, train_dataset=dataset, processing_class=AutoTokenizer.from_pretrained(path))
