"""Forward and backward passes of one step in padded rows, in packed ones, and in packed ones that share prompts.

python -m tests.measure.packing [--pairs PAIRS.parquet | --lengths 700 150 150] [--rounds 5]

The three take turns on the same pairs, model and micro-batches' sizes, and CPU seconds are counted, so that other work
on the machine hardly matters. Beside each ratio of times stands that of the operations that are run, padding included
(flops.py): time cannot follow any further.
"""

from __future__ import annotations

import statistics
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mixdpo_ray.training.logps import Scorer, pair_logps
from tests.measure.arms import ARMS, PADDED, Micro, micro_batches
from tests.measure.flops import Work
from tests.measure.made_rows import VOCABULARY
from tests.measure.sizes import Shape
from tests.measure.step_options import chosen_rows, step_parser

SHAPE = Shape("small Llama", 8, 384, 6, 2, 1024, VOCABULARY)


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=SHAPE.width, intermediate_size=SHAPE.intermediate,
        num_hidden_layers=SHAPE.layers, num_attention_heads=SHAPE.heads, num_key_value_heads=SHAPE.groups,
        max_position_embeddings=1024, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def seconds_of(scorer: Scorer, step: list[Micro]) -> float:
    scorer.zero_grad()
    began = time.process_time()
    for micro in step:
        torch.autograd.backward(micro.loss(pair_logps(scorer, micro.batch)))
    return time.process_time() - began


def work_of(step: list[Micro]) -> Work:
    return sum((micro.run for micro in step), Work(0, 0, 0))


def main() -> None:
    parser = step_parser(__doc__, rounds=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = chosen_rows(options, options.global_batch)
    scorer = Scorer(small_llama(), packing=True)
    steps = {arm: micro_batches(arm, rows, options.per_device) for arm in ARMS}
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(options.rounds + 1):
        for arm, step in steps.items():
            taken = seconds_of(scorer, step)
            if number:  # the first round warms up
                seconds[arm].append(taken)
    usual, most = statistics.median(seconds[PADDED]), work_of(steps[PADDED]).flops(SHAPE)
    for arm, step in steps.items():
        median, spread = statistics.median(seconds[arm]), f"{min(seconds[arm]):.2f}-{max(seconds[arm]):.2f}"
        gain, ceiling = usual / median, most / work_of(step).flops(SHAPE)
        print(
            f"{arm:8} {median:6.2f} s ({spread}), {gain:.2f}x of a ceiling of {ceiling:.2f}x ({gain / ceiling:.2f}); "
            f"{work_of(step).tokens} places"
        )


if __name__ == "__main__":
    main()
