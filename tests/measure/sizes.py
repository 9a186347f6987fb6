"""The shapes of the models that are measured, and how much is run: in full on a GPU, tiny to try the script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import Qwen2Config


@dataclass(frozen=True)
class Shape:
    """A decoder as in Qwen2.5: grouped heads, biases on queries, keys and values, embeddings tied to the output."""

    name: str
    layers: int
    width: int
    heads: int
    groups: int  # of keys and values
    intermediate: int
    vocabulary: int
    head_width: int = 64

    @property
    def query_width(self) -> int:
        return self.heads * self.head_width

    @property
    def linear_weights(self) -> int:
        """Of all layers, without biases, norms and the vocabulary."""
        keys = self.groups * self.head_width
        attention = 2 * self.width * self.query_width + 2 * self.width * keys
        return self.layers * (attention + 3 * self.width * self.intermediate)

    def config(self) -> Qwen2Config:
        from transformers import Qwen2Config

        return Qwen2Config(
            vocab_size=self.vocabulary, hidden_size=self.width, intermediate_size=self.intermediate,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.groups,
            max_position_embeddings=32_768, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
        )  # fmt: skip

    def write(self, folder: Path, device: str, dtype: str = "bfloat16") -> None:
        """Random weights, drawn on the device."""
        from transformers import Qwen2ForCausalLM

        from tests.measure.made_rows import save_tokenizer

        torch.manual_seed(0)
        with torch.device(device):
            model = Qwen2ForCausalLM(self.config())
        model.to(getattr(torch, dtype)).save_pretrained(folder)
        save_tokenizer(folder, words=8)


QWEN_05 = Shape("Qwen2.5-0.5B", 24, 896, 14, 2, 4864, 151_936)
QWEN_15 = Shape("Qwen2.5-1.5B", 28, 1536, 12, 2, 8960, 151_936, head_width=128)
SHALLOW = Shape("4 layers of Qwen2.5-0.5B", 4, 896, 14, 2, 4864, 32_768)  # what a CPU can follow, and a disk can hold
SMALL = Shape("2 small layers", 2, 64, 4, 2, 128, 256, head_width=16)
SMALLER = Shape("1 small layer", 1, 64, 4, 2, 128, 256, head_width=16)


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    model: Shape
    larger: Shape
    shallow: Shape
    shortened: int  # what lengths are divided by
    micro_pairs: int  # of the window that micro-steps are cut from
    micro_batches: tuple[int, ...]  # pairs per micro-step
    warm_ups: int
    timed: int
    batch: int  # pairs of an optimizer step
    per_device: int
    steps: int
    peer_batch: int  # the same beside TRL, and where a run is killed
    peer_per_device: int
    peer_steps: int
    matrix: int  # rows and columns of the product that is timed
    copied: int  # bytes


FULL = Sizes(
    QWEN_05, QWEN_15, SHALLOW, shortened=1, micro_pairs=64, micro_batches=(4, 16, 64), warm_ups=2, timed=6,
    batch=64, per_device=32, steps=4, peer_batch=64, peer_per_device=8, peer_steps=4, matrix=8192, copied=4 << 30,
)  # fmt: skip
TINY = Sizes(
    SMALL, SMALLER, SMALLER, shortened=8, micro_pairs=4, micro_batches=(1, 2), warm_ups=1, timed=2,
    batch=4, per_device=2, steps=3, peer_batch=4, peer_per_device=2, peer_steps=3, matrix=256, copied=1 << 22,
)  # fmt: skip
