"""TRL's trainers on rows that are tokens already, in the order given, one loss per optimizer step: the yardstick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer

from tests.measure.clock import now
from tests.peer.setup import Record, Setup

# The other name is that of transformers 5.17; TRL switches it on by default.
_CHECKPOINTING = next(
    name for name in ("activation_checkpointing", "gradient_checkpointing") if name in DPOConfig.__dataclass_fields__
)


class _Steps:
    """Mixed into a trainer: sequential order, and the mean of the micro-batches' losses for every optimizer step."""

    micro_losses: list[torch.Tensor]

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)  # type: ignore[attr-defined]

    def compute_loss(self, *arguments: Any, **named: Any) -> Any:
        result = super().compute_loss(*arguments, **named)  # type: ignore[misc]
        loss = result[0] if isinstance(result, tuple) else result
        self.micro_losses.append(loss.detach().clone())  # read at the end: nobody waits for the device here
        return result


class _Stamps(TrainerCallback):  # type: ignore[misc]
    def __init__(self, device: str) -> None:
        self.device = device
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(now(self.device))


class TokenisedDPO(_Steps, DPOTrainer):  # type: ignore[misc]
    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


class TokenisedCPO(_Steps, CPOTrainer):  # type: ignore[misc]
    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for answer in ("chosen", "rejected"):
            ids = feature["prompt_ids"] + feature[f"{answer}_ids"]
            row[f"{answer}_input_ids"] = ids
            row[f"{answer}_attention_mask"] = [1] * len(ids)
            row[f"{answer}_labels"] = [-100] * len(feature["prompt_ids"]) + feature[f"{answer}_ids"]
        return row


def run_dpo(setup: Setup, folder: Path, loss_type: str = "sigmoid", precompute: bool = False) -> Record:
    config = DPOConfig(
        **arguments(setup, folder), loss_type=[loss_type], beta=setup.beta, max_length=None,
        precompute_ref_log_probs=precompute,
    )  # fmt: skip
    return _run(TokenisedDPO, config, setup, Dataset.from_list(list(setup.rows)))


def run_simpo(setup: Setup, folder: Path, gamma_beta_ratio: float) -> Record:
    config = CPOConfig(
        **arguments(setup, folder), loss_type="simpo", cpo_alpha=0.0, beta=setup.beta,
        simpo_gamma=gamma_beta_ratio * setup.beta, max_length=4096,
    )  # fmt: skip
    texts = {"prompt": "-", "chosen": "-", "rejected": "-"}
    return _run(TokenisedCPO, config, setup, Dataset.from_list([{**row, **texts} for row in setup.rows]))


def arguments(setup: Setup, folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "learning_rate": setup.learning_rate, "max_steps": setup.steps,
        "lr_scheduler_type": "constant", "warmup_steps": 0, "weight_decay": 0.0, "max_grad_norm": 1.0, "seed": 0,
        "per_device_train_batch_size": setup.per_device,
        "gradient_accumulation_steps": setup.global_batch // setup.per_device,
        "use_cpu": setup.device == "cpu", "bf16": setup.dtype == "bfloat16", _CHECKPOINTING: False,
        "report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no",
        "dataloader_pin_memory": setup.device != "cpu", "remove_unused_columns": False,
    }  # fmt: skip


def _run(kind: type[Any], config: Any, setup: Setup, dataset: Dataset) -> Record:
    model = AutoModelForCausalLM.from_pretrained(setup.model, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(setup.model)
    trainer = kind(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
    trainer.micro_losses, stamps = [], _Stamps(setup.device)
    trainer.add_callback(stamps)
    trainer.train()
    micro = setup.global_batch // setup.per_device
    losses = [loss.item() for loss in trainer.micro_losses]
    return Record([sum(piece) / micro for piece in _pieces(losses, micro)], stamps.ends)


def _pieces(values: list[float], size: int) -> Iterator[list[float]]:
    for first in range(0, len(values), size):
        yield values[first : first + size]
