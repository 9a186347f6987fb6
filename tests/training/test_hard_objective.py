"""Hard pairs under an objective of their own: both answers, the reference, and pairs as the denominator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.simpo import SimPO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.checks_before_training import references_for
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.settings import CheckpointSettings
from tests.training.gang import Gang
from tests.training.test_every_objective import told, train
from tests.training.test_gradients import Weights, difference, gradient, plain_job
from tests.training.test_loop import train_until, unlike, weights
from tests.training.tiny import EASY, HARD, make_job

MIXED = 2  # of a router: six easy pairs and two ties
LEAST = -np.log(np.tanh(0.25))  # of the loss of a tie between equal answers, with alpha 0.5
TIES = {"name": "todo", "beta": 1.0, "alpha": 0.5}


def job_of(job: TrainingJob, tiny: Path) -> TrainingJob:
    """Against a reference that is not the policy, and that knows the hard pairs too."""
    model = job.model.model_copy(update={"reference": "apart"})
    return replace(job, model=model, reference=str(tiny / "apart"))


def naive(job: TrainingJob, step: int) -> tuple[float, Weights]:
    """(1/N) of the sum of all losses, pair by pair, with the model's own full forward."""
    table = PreparedTable.open(job.prepared)
    plan = job.plan(table)
    window, references = plan.window(step), references_for(job, table, plan)
    model = LlamaForCausalLM.from_pretrained(job.model.path, dtype=torch.float32)
    assert references is not None

    def logp(row: dict[str, Any], side: str) -> Tensor:
        prompt, answer = row["prompt_ids"], row[f"{side}_ids"]
        logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        total: Tensor = logits.log_softmax(-1)[range(len(answer)), answer].sum()
        return total[None]

    loss = torch.zeros(())
    rows = table.read("train", window.positions).to_pylist()
    for row, position, hard in zip(rows, window.positions, window.hard, strict=True):
        pair = PairLogps(
            logp(row, "chosen"),
            logp(row, "rejected"),
            torch.tensor([float(len(row["chosen_ids"]))]),
            torch.tensor([float(len(row["rejected_ids"]))]),
            torch.zeros(1),
            torch.tensor([references.chosen[position]]),
            torch.tensor([references.rejected[position]]),
        )
        assert job.hard_objective is not None
        loss = loss + (job.hard_objective.hard_losses(pair) if hard else job.objective.losses(pair)).sum()
    loss = loss / len(rows)
    torch.autograd.backward(loss)
    return float(loss.detach()), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", [DPO(beta=1.0), SimPO()], ids=repr)
@pytest.mark.parametrize("step", [MIXED, 3], ids=["mixed", "hard"])
def test_every_split_of_a_window_gives_the_gradient_of_the_naive_sum(
    tiny: Path, one: Gang, two: Gang, four: Gang, objective: Objective, step: int
) -> None:
    """Padded and packed, under ZeRO-3 too; an easy objective without a reference goes with ties that have one."""
    settings: dict[str, Any] = {"objective": objective, "curriculum": {"mode": "router", "hard_objective": TIES}}
    loss, truth = naive(job_of(plain_job(tiny, 1, **settings), tiny), step)
    for gang, pairs, stage, packing in ((one, 3, 0, False), (two, 2, 3, False), (four, 2, 0, True), (two, 2, 3, True)):
        job = job_of(plain_job(tiny, pairs, zero_stage=stage, model={"packing": packing}, **settings), tiny)
        sums, _, found = gang(gradient, job, step)[0]
        assert sums["loss"] == pytest.approx(loss, rel=1e-6)
        assert difference(found, truth) < 1e-5


def test_ties_are_trained_in_the_second_stage_and_continued_there_after_a_kill(
    tiny: Path, one: Gang, two: Gang, tmp_path: Path
) -> None:
    """Two workers end where one does, and to the same bits where they are stopped between the steps of that stage."""
    curriculum, checkpoints = {"hard_objective": TIES}, CheckpointSettings(every_steps=2)
    jobs = [
        job_of(make_job(tiny, tmp_path / name, curriculum=curriculum, checkpoints=checkpoints), tiny)
        for name in ("one", "two", "killed")
    ]
    one(train, jobs[0])
    two(train, jobs[1])
    two(train_until, jobs[2], 4)
    two(train, jobs[2])
    assert unlike(weights(tmp_path / "two"), weights(tmp_path / "one")) < 2e-5
    assert unlike(weights(tmp_path / "killed"), weights(tmp_path / "two")) == 0
    assert told(tmp_path / "killed") == told(tmp_path / "two")
    steps = [line for line in told(tmp_path / "one") if "kind" not in line]
    assert [line["stage"] for line in steps] == ["easy"] * 3 + ["hard"] * 2
    assert [("loss/hard" in line, "loss/easy" in line) for line in steps] == [(False, True)] * 3 + [(True, False)] * 2
    assert all(line["loss/hard"] > LEAST for line in steps[3:])


def test_a_tie_s_gradient_pushes_both_answers_together_in_training(tiny: Path, one: Gang, tmp_path: Path) -> None:
    """All pairs are ties to it, of a policy that begins apart from its reference: their loss falls."""
    curriculum = {"threshold": {"hard_fraction": 1.0}, "hard_objective": {"name": "todo", "beta": 5.0}}
    one(train, job_of(make_job(tiny, tmp_path, curriculum=curriculum, num_train_epochs=3), tiny))
    losses = [line["loss/hard"] for line in told(tmp_path) if "loss/hard" in line]
    assert np.mean(losses[:4]) - LEAST > 3 * (np.mean(losses[-4:]) - LEAST) > 0


@pytest.mark.parametrize(
    ("objective", "hard_objective", "expected"),
    [
        (DPO(), None, EASY),
        (DPO(), {"name": "todo"}, EASY + HARD),
        (DPO(), {"name": "simpo"}, EASY),
        (SimPO(), {"name": "dpo_d"}, EASY + HARD),
    ],
)
def test_the_reference_covers_what_meets_an_objective_that_has_one(
    tiny: Path, tmp_path: Path, objective: Objective, hard_objective: dict[str, Any] | None, expected: int
) -> None:
    job = make_job(tiny, tmp_path, objective=objective, curriculum={"hard_objective": hard_objective})
    assert job.reference_positions(job.plan(PreparedTable.open(job.prepared))).sum() == expected


def test_ties_without_references_are_refused(tiny: Path, tmp_path: Path) -> None:
    job = make_job(tiny, tmp_path, curriculum={"hard_objective": TIES})
    table = PreparedTable.open(job.prepared)
    with pytest.raises(PreparedTableError, match=rf"reference lacks {HARD} pairs, the first a0"):
        references_for(job, table, job.plan(table))


def test_ties_begin_as_equal_answers_where_the_policy_becomes_their_reference(
    tiny: Path, two: Gang, tmp_path: Path
) -> None:
    """The first table then knows easy pairs alone: hard ones are scored when their stage begins."""
    curriculum = {"hard_objective": TIES, "refresh_reference": "per_stage"}
    two(train, make_job(tiny, tmp_path, curriculum=curriculum))
    losses = [line["loss/hard"] for line in told(tmp_path) if "loss/hard" in line]
    assert losses[0] == pytest.approx(LEAST, abs=1e-5)
    assert losses[1] > LEAST
