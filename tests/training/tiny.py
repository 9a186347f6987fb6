"""A tiny random Llama, random pairs of unequal lengths with their references, and jobs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.tables.mismatched import MISMATCHED, rows_of
from mixdpo_ray.tables.prepared_table import (
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)
from mixdpo_ray.tables.reference_table import TOKENS, ReferenceTable, TokenReferenceTable
from mixdpo_ray.training.batch import TokenRows, build_batch
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.logps import Scorer
from mixdpo_ray.training.settings import (
    CheckpointSettings,
    DeepSpeedSettings,
    EvaluationSettings,
    ModelSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainSettings,
)

VOCABULARY = 32
EASY, HARD, HELD_OUT = 22, 10, 9  # pairs; margins 3.0 down to 0.5 are easy, ties are hard


def make_world(folder: Path) -> Path:
    """model/, table/ and reference/ in a folder."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    words = {f"w{number}": number for number in range(VOCABULARY)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="w1", eos_token="w2", pad_token="w0").save_pretrained(
        folder / "model"
    )
    make_table(folder / "table")
    make_references(folder, folder / "reference", EASY)
    make_references(folder, folder / "apart", EASY + HARD, noise=0.02)
    return folder


def make_table(folder: Path) -> None:
    generator = np.random.default_rng(0)
    margins = np.concatenate([np.linspace(3.0, 0.5, EASY).round(1), np.zeros(HARD)])
    splits = {"train": margins, "eval": generator.choice([0.0, 0.5, 1.0, 3.0], HELD_OUT)}
    for split, of_split in splits.items():
        rows = make_rows(generator, of_split, "ab"[split == "eval"])
        write_part(str(folder), split, rows.slice(0, 5))
        write_part(str(folder), split, rows.slice(5))
        write_index(str(folder), split, index_rows(rows))
    total = sum(map(len, splits.values()))
    facts = {split: SplitFacts(rows=len(rows), first_positions=(0, 5)) for split, rows in splits.items()}
    commit(str(folder), Manifest(fingerprint="tiny", splits=facts, rows_in=total, rows_kept=total))


def make_rows(generator: np.random.Generator, margins: np.ndarray[Any, Any], prefix: str) -> pa.Table:
    def tokens(low: int, high: int) -> list[list[int]]:
        return [generator.integers(3, VOCABULARY, generator.integers(low, high)).tolist() for _ in margins]

    count = len(margins)
    return pa.table(
        {
            "position": np.arange(count),
            "pair_id": [f"{prefix}{number:031x}" for number in range(count)],
            "prompt_ids": pa.array(tokens(2, 9), pa.list_(pa.int32())),
            "chosen_ids": pa.array(tokens(1, 12), pa.list_(pa.int32())),
            "rejected_ids": pa.array(tokens(1, 12), pa.list_(pa.int32())),
            "score_chosen": margins + 5.0,
            "score_rejected": np.full(count, 5.0),
            "margin": margins,
        }
    )


def make_references(folder: Path, store_folder: Path, trained: int, noise: float = 0.0) -> None:
    """Hard training pairs are left out of the first, as in a real run. Noise: of a reference that is not the policy."""
    model = LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * torch.randn_like(parameter)
    scorer = Scorer(model).eval()
    table = PreparedTable.open(str(folder / "table"))
    store = ReferenceTable.create(str(store_folder), "tiny")
    of_tokens = TokenReferenceTable.create(str(store_folder) + TOKENS, "tiny")
    for split, count in (("train", trained), ("eval", HELD_OUT), (MISMATCHED, trained)):
        positions = np.arange(count)
        rows = rows_of(table, split, positions)
        each = [_logps_of(scorer, TokenRows.of(rows, positions), position) for position in range(count)]
        answers = {"chosen": [chosen for chosen, _ in each], "rejected": [rejected for _, rejected in each]}
        sums = {
            f"ref_{side}_logp": pa.array([float(logps.sum()) for logps in texts], pa.float32())
            for side, texts in answers.items()
        }
        lists = {
            f"ref_{side}_logps": pa.array([logps.tolist() for logps in texts], pa.list_(pa.float32()))
            for side, texts in answers.items()
        }
        store.append(pa.table({"pair_id": rows["pair_id"], **sums}))
        of_tokens.append(pa.table({"pair_id": rows["pair_id"], **lists}))


def _logps_of(scorer: Scorer, tokens: TokenRows, position: int) -> tuple[Tensor, Tensor]:
    """Of the tokens of both answers of a pair, alone in its batch."""
    batch = build_batch(
        tokens, np.array([position]), np.array([False]), None, weight=1.0, padding=0, device=torch.device("cpu")
    )
    with torch.no_grad():
        chosen, rejected = scorer(batch)
    return chosen[: int(batch.lengths[0])], rejected[: int(batch.lengths[1])]


def make_job(
    world: Path,
    run: Path,
    *,
    objective: Objective | None = None,
    curriculum: dict[str, Any] | None = None,
    zero_stage: int = 2,
    sequence_parallel: int = 1,
    model: dict[str, Any] | None = None,
    **train: Any,
) -> TrainingJob:
    """8 pairs a step: 3 easy steps (the last of 6 pairs) and 2 hard ones (the last of 2)."""
    settings: dict[str, Any] = {
        "global_batch_size": 8,
        "per_device_train_batch_size": 2,
        "optimizer": OptimizerSettings(learning_rate=1e-3),
        "schedule": ScheduleSettings(),
        "evaluation": EvaluationSettings(),
        "checkpoints": CheckpointSettings(every_steps=None),
        **train,
    }
    chosen = objective or DPO(beta=0.1)
    return TrainingJob(
        model=ModelSettings.model_validate({"path": str(world / "model"), "dtype": "float32", **(model or {})}),
        curriculum=CurriculumSettings.model_validate(curriculum or {}),
        objective=chosen,
        train=TrainSettings.model_validate(settings),
        deepspeed=DeepSpeedSettings.model_validate({"zero_stage": zero_stage, "sequence_parallel": sequence_parallel}),
        prepared=str(world / "table"),
        reference=str(world / "reference") if chosen.needs_reference else None,
        run=str(run),
        fingerprint="tiny",
    )
