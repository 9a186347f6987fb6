"""Held-out metrics against a naive loop over pairs."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import LlamaForCausalLM

from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.tables.prepared_table import PreparedTable, commit, index_rows, write_index, write_part
from mixdpo_ray.training.engine import make_policy
from mixdpo_ray.training.evaluation import _named, evaluate_held_out, hard_boundary, read_held_out, refuse_not_finite
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.metric_names import EDGES, HELD_OUT_METRICS, MEASURES, bucket_name, needs_reference
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.tiny import HELD_OUT, make_job


def evaluated(world: World, job: TrainingJob, per_device: int) -> dict[str, float]:
    table = PreparedTable.open(job.prepared)
    boundary = hard_boundary(job.plan(table), table.index("train"))
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding=0)
    packed = policy.rows == "packed"
    everything = range(table.rows("eval"))
    held_out = read_held_out(table, world, per_device, 7, boundary, job.reference, everything, packed=packed)
    return evaluate_held_out(policy, job.objective, held_out, world).metrics


@pytest.mark.parametrize("packing", [False, True])
def test_metrics_are_those_of_each_pair_alone_for_every_split(
    tiny: Path, one: Gang, two: Gang, *, packing: bool
) -> None:
    """SimPO's rewards: beta = 2 times the mean log-prob of a token. Nine pairs, so two workers need a filler."""
    job = make_job(tiny, tiny / "unused", objective=SimPO(), model={"packing": packing})
    model = LlamaForCausalLM.from_pretrained(job.model.path, dtype=torch.float32)
    rows = PreparedTable.open(job.prepared).read("eval", np.arange(HELD_OUT)).to_pylist()
    means: dict[str, list[float]] = {"chosen": [], "rejected": []}
    with torch.no_grad():
        for row in rows:
            for side, values in means.items():
                prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
                logps = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
                values.append(float(logps[range(len(answer)), answer].mean()))
    correct = np.array(means["chosen"]) > np.array(means["rejected"])
    margins = np.array([row["margin"] for row in rows])
    for gang, per_device in ((one, 4), (two, 1), (two, 2)):
        found = gang(evaluated, job, per_device)
        assert all(metrics == pytest.approx(found[0]) for metrics in found)
        metrics = found[0]
        assert metrics["eval_rewards/accuracies"] == pytest.approx(correct.mean())
        assert metrics["eval_rewards/margins"] == pytest.approx(
            2 * np.mean(np.subtract(means["chosen"], means["rejected"])), abs=1e-5
        )
        assert metrics["eval_nll/chosen"] == pytest.approx(-np.mean(means["chosen"]), abs=1e-5)
        ties = margins == 0
        assert metrics["eval_loss/hard"] == pytest.approx(-np.mean(np.array(means["chosen"])[ties]), abs=1e-5)
        assert metrics["eval_rewards/accuracies/margin_0-0.5"] == pytest.approx(correct[ties].mean())
        assert metrics["eval_pairs/margin_0-0.5"] == ties.sum()
        assert sum(value for name, value in metrics.items() if name.startswith("eval_pairs/")) == HELD_OUT
        assert "eval_logps/chosen_drift" not in metrics


def test_what_is_hard_is_told_by_the_difficulty_where_a_table_has_one(tiny: Path, tmp_path: Path) -> None:
    before, folder = PreparedTable.open(str(tiny / "table")), str(tmp_path / "table")
    difficulties = {"train": 100.0 - np.arange(before.rows("train")), "eval": np.arange(HELD_OUT) + 90.0}
    for split, difficulty in difficulties.items():
        rows = before.read(split, np.arange(len(difficulty))).append_column("difficulty", pa.array(difficulty))
        write_part(folder, split, rows.slice(0, 5))
        write_part(folder, split, rows.slice(5))
        write_index(folder, split, index_rows(rows))
    commit(folder, before.manifest)
    job = replace(make_job(tiny, tmp_path, curriculum={"threshold": {"hard_fraction": 0.25}}), prepared=folder)
    table = PreparedTable.open(folder)
    boundary = hard_boundary(job.plan(table), table.index("train"))
    assert boundary == 100.0 - 24  # 32 pairs, the last 8 of them are hard
    for edge, hard in ((boundary, 0), (92.0, 3)):
        held_out = read_held_out(table, World(), 4, 7, edge, None, range(HELD_OUT))
        assert held_out.hard.tolist() == [True] * hard + [False] * (HELD_OUT - hard)


def test_drift_is_zero_where_the_policy_is_the_reference(tiny: Path, two: Gang) -> None:
    metrics = two(evaluated, make_job(tiny, tiny / "unused"), 2)[0]
    assert metrics["eval_logps/chosen_drift"] == pytest.approx(0, abs=1e-5)
    assert metrics["eval_loss"] == pytest.approx(0.693147, abs=1e-6)


def test_what_is_measured_has_the_names_that_recipes_may_write(tiny: Path) -> None:
    """A pair in every bucket, and easy and hard ones. What only says how far a mean can be trusted is none of them."""
    held_out = read_held_out(PreparedTable.open(str(tiny / "table")), World(), 4, 7, 0.0, None, range(HELD_OUT))
    count = len(EDGES)
    held_out = replace(held_out, bucket=np.arange(count), hard=np.arange(count) % 2 == 0)
    values = np.ones((count, len(MEASURES)))

    def named(*, has_reference: bool) -> set[str]:
        found = _named(values, held_out, has_reference=has_reference)
        return {name for name in found if not name.startswith("eval_std/")}

    assert named(has_reference=True) == set(HELD_OUT_METRICS)
    assert named(has_reference=False) == {name for name in HELD_OUT_METRICS if not needs_reference(name)}


@pytest.mark.parametrize(
    ("step", "metrics", "said"),
    [
        (
            0,
            {"eval_loss": math.nan},
            "before the first step: eval_loss is not finite; look at the settings of",
        ),
        (0, {"eval_loss": math.nan, "eval_logps/chosen": -math.inf}, "eval_logps/chosen is not finite; look at the mo"),
        (3, {"eval_loss": math.inf}, "evaluation after 3 steps: eval_loss is not finite; look at the learning rate"),
    ],
)
def test_the_advice_fits_the_moment_at_which_a_metric_is_not_finite(
    step: int, metrics: dict[str, float], said: str
) -> None:
    with pytest.raises(NonFiniteError, match=re.escape(said)):
        refuse_not_finite(metrics, step, DPO())
    refuse_not_finite({"eval_loss": 0.7}, step, DPO())


def test_buckets_are_named_by_their_ends() -> None:
    assert [bucket_name(number) for number in range(5)] == [
        "margin_0-0.5", "margin_0.5-1", "margin_1-2", "margin_2-4", "margin_4-inf",
    ]  # fmt: skip
