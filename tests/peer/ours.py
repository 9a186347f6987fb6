"""The same setup run by mixdpo_ray in one process: every pair easy, a constant learning rate, the order given."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM

from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective, StepView
from mixdpo_ray.tables.prepared_table import (
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.batch import TokenRows, build_batch
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.logps import Scorer, pair_logps
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import (
    CheckpointSettings,
    DeepSpeedSettings,
    ModelSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainSettings,
)
from mixdpo_ray.training.world import World
from tests.peer.batch import Batch, Found
from tests.peer.setup import Record, Row, Setup


def write_inputs(
    folder: Path, model: Path, rows: Sequence[Row], pairs_per_batch: int = 8, *, dtype: str = "float32",
    device: str = "cpu",
) -> None:  # fmt: skip
    """table/ and reference/ for rows in the order given."""
    count = len(rows)
    margins = np.linspace(9, 1, count)
    table = pa.table(
        {
            "position": np.arange(count),
            "pair_id": [f"{number:032x}" for number in range(count)],
            **{
                name: pa.array([row[name] for row in rows], pa.list_(pa.int32()))
                for name in ("prompt_ids", "chosen_ids", "rejected_ids")
            },
            "score_chosen": margins,
            "score_rejected": np.zeros(count),
            "margin": margins,
        }
    )
    target = str(folder / "table")
    write_part(target, "train", table)
    write_index(target, "train", index_rows(table))
    splits = {"train": SplitFacts(rows=count, first_positions=(0,))}
    commit(target, Manifest(fingerprint="peer", splits=splits, rows_in=count, rows_kept=count))
    _write_references(folder, model, pairs_per_batch, dtype, device)


def _write_references(folder: Path, model: Path, pairs_per_batch: int, dtype: str, device: str) -> None:
    scorer = Scorer(AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).to(device)).eval()
    table = PreparedTable.open(str(folder / "table"))
    index = table.index("train")
    store = ReferenceTable.create(str(folder / "reference"), "peer")
    chosen, rejected = [], []
    for first in range(0, len(index), pairs_per_batch):
        positions = np.arange(first, min(first + pairs_per_batch, len(index)))
        tokens = TokenRows.of(table.read("train", positions), positions)
        easy = np.zeros(len(positions), np.bool_)
        batch = build_batch(tokens, positions, easy, None, weight=1, padding=0, device=torch.device(device))
        with torch.inference_mode():
            pairs = pair_logps(scorer, batch).easy
        chosen += pairs.chosen.tolist()
        rejected += pairs.rejected.tolist()
    columns = {"pair_id": index.pair_id, "ref_chosen_logp": chosen, "ref_rejected_logp": rejected}
    store.append(pa.table(columns))


def make_job(setup: Setup, folder: Path, objective: Objective, run: str = "run") -> TrainingJob:
    return TrainingJob(
        model=ModelSettings(path=str(setup.model), dtype=setup.dtype, packing=False),  # unless what is measured says so
        curriculum=CurriculumSettings(mode="sorted_dpo"),
        objective=objective,
        train=TrainSettings(
            global_batch_size=setup.global_batch,
            per_device_train_batch_size=setup.per_device,
            max_steps=setup.steps,
            optimizer=OptimizerSettings(learning_rate=setup.learning_rate),
            schedule=ScheduleSettings(lr_scheduler_type="constant", warmup_steps=0),
            checkpoints=CheckpointSettings(every_steps=None),
        ),
        deepspeed=DeepSpeedSettings(zero_stage=0),
        prepared=str(folder / "table"),
        reference=str(folder / "reference") if objective.needs_reference else None,
        run=str(folder / run),
        fingerprint="peer",
    )


def run_ours(setup: Setup, folder: Path, objective: Objective) -> Record:
    """`folder` holds what write_inputs wrote."""
    job = make_job(setup, folder, objective, run=f"run-{type(objective).__name__}")
    run_training(job, World())
    lines = [json.loads(line) for line in (Path(job.run) / "metrics.jsonl").read_text().splitlines()]
    return Record([line["loss"] for line in lines])


def our_loss(objective: Objective, batch: Batch, mismatched: Sequence[float] | None = None) -> Found:
    """Of a batch as a whole step; what is read off it is computed as in training: detached, in double precision."""
    chosen = torch.tensor([math.fsum(logps) for logps in batch.chosen], requires_grad=True)
    rejected = torch.tensor([math.fsum(logps) for logps in batch.rejected], requires_grad=True)
    pairs = PairLogps(
        chosen,
        rejected,
        torch.tensor([len(logps) for logps in batch.chosen]),
        torch.tensor([len(logps) for logps in batch.rejected]),
        torch.zeros(len(chosen)),  # margins, which TRL does not know
        torch.tensor(batch.ref_chosen),
        torch.tensor(batch.ref_rejected),
    )
    if isinstance(objective, StepObjective):
        step = {name: value.detach().double() for name, value in vars(pairs).items() if isinstance(value, torch.Tensor)}
        foreign = None if mismatched is None else torch.tensor(mismatched, dtype=torch.float64)
        seen, _ = objective.statistics(StepView(PairLogps(**step), mismatched_ratio=foreign))  # type: ignore[arg-type]
        pairs = replace(pairs, step={name: value.float() for name, value in seen.items()})
    loss = objective.losses(pairs).mean()
    slopes = torch.autograd.grad(loss, [chosen, rejected], allow_unused=True, materialize_grads=True)
    return Found(loss.item(), slopes[0].tolist(), slopes[1].tolist())
