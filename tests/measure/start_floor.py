"""The least that two workers of Ray Train need to take one step: no recipe, no table, no package of ours."""

from __future__ import annotations

import os
import tempfile

import ray
from ray.train import RunConfig, ScalingConfig, get_context
from ray.train.torch import TorchTrainer


def worker() -> None:
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed  # noqa: F401
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, **shape))
    optimizer = torch.optim.AdamW(model.parameters())
    ids = torch.randint(64, (4, 16))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    if get_context().get_world_rank() == 0:
        print("first step", flush=True)


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            worker, scaling_config=ScalingConfig(num_workers=2), run_config=RunConfig(storage_path=folder)
        )
        trainer.fit()
    ray.shutdown()
