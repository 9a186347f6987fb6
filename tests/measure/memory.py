"""The most that tensors take on a GPU, and what the project foresees for a micro-batch of that size."""

from __future__ import annotations

import torch

from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.batch import PairBatch
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.length_groups import RowKind, row_kind
from mixdpo_ray.training.memory_estimate import CUDA_RUNTIME, shape_of, worker_memory
from mixdpo_ray.training.window_shares import index_lengths, share_window, tokens_run

GIB = 2**30


def reset_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.init()  # type: ignore[no-untyped-call]  # before that it knows no device
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: str) -> float | None:
    """None without a GPU: only there does an allocator know it."""
    return None if device == "cpu" else torch.cuda.max_memory_allocated(device) / GIB


def padded_tokens_of(batch: PairBatch) -> int:
    return sum(row.ids.numel() for row in batch.groups)


def estimate_of(job: TrainingJob) -> float:
    """GiB of tensors alone, as an allocator counts them, with the largest micro-batch that a job runs on one worker."""
    shape = shape_of(job.model)
    kind = row_kind(packed=bool(job.model.packing) and shape.why_padded is None, gpu=True)
    memory = worker_memory(shape, job.train, job.deepspeed, most_tokens(job, kind), 1, gpu=True)
    return (memory.device_bytes - CUDA_RUNTIME) / GIB


def most_tokens(job: TrainingJob, kind: RowKind) -> int:
    """Of the largest micro-batch, padding included."""
    table = PreparedTable.open(job.prepared)
    index, plan = table.index("train"), job.plan(table)
    per_device, chunk_tokens = job.train.per_device_train_batch_size, job.train.logp_chunk_tokens
    most = 0
    for step in range(job.steps(plan)):
        window = plan.window(step)
        lengths = index_lengths(index, window.positions)
        (share,) = share_window(window, index, 1, per_device, chunk_tokens, kind).shares
        most = max(most, *(tokens_run(micro, window.hard, lengths, kind) for micro in share))
    return most
