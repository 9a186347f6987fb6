"""Scores of a model in shards are those of the whole one, and all ranks come to its layers equally often."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from mixdpo_ray.difficulty.ches import CHES
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training import sharded_model
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.model_loading import InShards, ModelLoading, Whole
from mixdpo_ray.training.scoring_pass import answers_of_rank, reference_rows
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import make_job

OUTPUT = 512  # weights of the last layer, which chunks come to again
POSITIONS = [0, 3, 4, 9, 11, 20, 21]


def references(world: World, folder: str, zero_stage: int) -> dict[str, tuple[float, float]]:
    """By the policy of a training, as it stands: what a reference that is computed again comes from."""
    job = make_job(Path(folder), Path(folder) / "run", zero_stage=zero_stage)
    table, policy = PreparedTable.open(job.prepared), make_policy(job.model, job.train, job.deepspeed, world, 0)
    with policy.evaluating():
        parts = list(reference_rows(policy, table, "train", np.array(POSITIONS), world, 2, 5))
    policy.close()
    return {
        row["pair_id"]: (row["ref_chosen_logp"], row["ref_rejected_logp"]) for one in parts for row in one.to_pylist()
    }


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_a_policy_scores_pairs_as_references_did(tiny: Path, two: Gang, zero_stage: int) -> None:
    """Seven pairs in passes of two: one rank has a filler."""
    shares: list[dict[str, Any]] = two(references, str(tiny), zero_stage)
    index = PreparedTable.open(str(tiny / "table")).index("train")
    ids = [index.pair_id[position] for position in POSITIONS]
    assert sorted([*shares[0], *shares[1]]) == sorted(ids)
    chosen, rejected = ReferenceTable.open(str(tiny / "reference")).aligned(ids)
    found = {**shares[0], **shares[1]}
    assert np.allclose([found[one] for one in ids], np.stack([chosen, rejected], 1), rtol=1e-5, atol=1e-5)


def log_probs(folder: Path, model: ModelSettings, loading: ModelLoading) -> Any:
    from mixdpo_ray.scoring.reference import _Reference

    return _Reference(str(folder / "table"), model, 7, loading)


def tokens(folder: Path, model: ModelSettings, loading: ModelLoading) -> Any:
    from mixdpo_ray.scoring.reference import _TokenReference

    return _TokenReference(str(folder / "table"), model, 7, loading)


def ches(folder: Path, model: ModelSettings, loading: ModelLoading) -> Any:
    from mixdpo_ray.scoring.metric_scores import _ScorePairs

    return _ScorePairs(str(folder / "table"), CHES(), model, loading)


def rewards(folder: Path, model: ModelSettings, loading: ModelLoading) -> Any:
    from mixdpo_ray.rating.workers import RewardWorker

    return RewardWorker(model.model_copy(update={"path": str(folder / "reward")}), "here", 16, loading)


def implicit_rewards(folder: Path, model: ModelSettings, loading: ModelLoading) -> Any:
    from mixdpo_ray.rating.workers import LogpWorker

    return LogpWorker(model, "here", 3, loading)


def answers(folder: Path, model: ModelSettings, loading: ModelLoading) -> Any:
    from mixdpo_ray.sampling.hf import HfWorker

    return HfWorker(model, "here", DecodingSettings(max_new_tokens=16), loading)


PAIRS: list[dict[str, Any]] = [{"split": ["train"], "positions": [rows]} for rows in ([0, 1, 2, 5], [7, 3], [20])]
TEXTS = [[f"a{row}", [[{"role": "user", "content": f"w{row + 3}"}], f"w{row + 4}"]] for row in range(5)]
IDS = [[f"a{row}", [[3, row + 3, 5][: 1 + row % 3], [6, 7, row + 8, 9][: 1 + row % 4]]] for row in range(5)]
ASKED = [[f"a{row}", row, [3 + row, 4, 5][: 1 + row % 3], 20 - 3 * row] for row in range(5)]


def in_threes(name: str, rows: list[Any]) -> list[dict[str, Any]]:
    """Three batches, so that one of two ranks has a filler."""
    return [{name: [json.dumps(rows[first : first + 2])]} for first in (0, 2, 4)]


WORKERS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "log-probs": (log_probs, PAIRS),
    "log-probs of tokens": (tokens, PAIRS),
    "CHES": (ches, PAIRS),
    "rewards": (rewards, in_threes("answers", TEXTS)),
    "implicit rewards": (implicit_rewards, in_threes("answers", IDS)),
    "answers": (answers, in_threes("asked", ASKED)),
}


@pytest.fixture(scope="module")
def models(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny world with a reward model beside its language model."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny, folder, dirs_exist_ok=True)
    shutil.copytree(folder / "model", folder / "reward")
    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(folder / "model", num_labels=1)
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    return folder


def asked_of(world: World, folder: Path, name: str, packing: bool, in_shards: bool) -> tuple[list[dict[str, Any]], int]:
    """The rows of a rank, and the weights that it holds behind its last batch."""
    sharded_model.SMALL = 10
    make, batches = WORKERS[name]
    model = ModelSettings(path=str(folder / "model"), dtype="float32", packing=packing)
    worker = make(folder, model, InShards(world) if in_shards else Whole())
    batches = [{key: np.array(value, object) for key, value in batch.items()} for batch in batches]
    rows = [
        row for _, part in answers_of_rank(worker, batches, world if in_shards else World()) for row in part.to_pylist()
    ]
    return rows, held_weights(worker)


def held_weights(worker: Any) -> int:
    """Weights that a rank has in memory besides its shard; those of CHES lie out of reach."""
    inside = getattr(worker, "scorer", None) or getattr(worker, "model", None)
    inside = getattr(inside, "model", inside)
    return sum(parameter.numel() for parameter in inside.parameters()) if inside is not None else 0


@pytest.mark.parametrize("name", WORKERS)
def test_in_shards_a_model_says_what_it_says_whole(models: Path, two: Gang, name: str) -> None:
    packing = name == "log-probs"
    (whole, _), *_ = two(asked_of, models, name, packing, False)
    found = two(asked_of, models, name, packing, True)
    shards = {tuple(row[key] for key in keys(row)): row for rows, _ in found for row in rows}
    assert len(shards) == len(whole)
    assert all(weights in (0, OUTPUT) for _, weights in found)
    for row in whole:
        other = shards[tuple(row[key] for key in keys(row))]
        for column, value in row.items():
            if column in ("ref_chosen_logps", "ref_rejected_logps") or isinstance(value, float):
                assert other[column] == pytest.approx(value, rel=1e-5, abs=1e-5), column
            else:
                assert other[column] == value, column


def keys(row: dict[str, Any]) -> list[str]:
    return [name for name in ("pair_id", "prompt_id", "draw") if name in row]
