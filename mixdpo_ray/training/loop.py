"""A training run: from a prepared table to an exported model, continuing by itself where a killed run stopped.

Everything that follows from a step's number is computed from it. What is carried from step to step is in the policy.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from mixdpo_ray import storage
from mixdpo_ray.curriculum.plan import Plan, Window
from mixdpo_ray.errors import NonFiniteError
from mixdpo_ray.objectives.step_objective import ObjectiveState, StepObjective
from mixdpo_ray.tables.index import Index
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.trained_rows import trained_index
from mixdpo_ray.tracking.trackers import Trackers
from mixdpo_ray.training.batch import PairBatch, References, TokenRows, build_batch
from mixdpo_ray.training.checkpoint_files import load_checkpoint, needs_conversion, refuse_other_world, sweep_scratch
from mixdpo_ray.training.checkpoint_writer import CheckpointWriter
from mixdpo_ray.training.checkpoints import Checkpoints
from mixdpo_ray.training.checks_before_training import check_scoring, padding_warning
from mixdpo_ray.training.deadline import Deadline
from mixdpo_ray.training.due import checkpoint_due, evaluation_due
from mixdpo_ray.training.engine import Policy, make_policy
from mixdpo_ray.training.evaluation import refuse_not_finite
from mixdpo_ray.training.export import export
from mixdpo_ray.training.first_stage import adopt
from mixdpo_ray.training.held_out_pairs import AFTER, BEFORE, describe_held_out
from mixdpo_ray.training.held_out_sets import HeldOutSets, evaluate_held_out_sets, read_held_out_sets
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.judged_steps import waits_for_judge
from mixdpo_ray.training.listener import Listener, Silent
from mixdpo_ray.training.metrics import MetricsLog, speed_metrics, step_metrics, window_facts
from mixdpo_ray.training.model_card import CardFacts
from mixdpo_ray.training.moving_reference import MovingReference
from mixdpo_ray.training.process_group import join_group
from mixdpo_ray.training.run_trackers import trackers_of
from mixdpo_ray.training.schedule import check_warmup, learning_rate
from mixdpo_ray.training.step import LossWeights, train_step
from mixdpo_ray.training.step_statistics import StatisticsContext, with_statistics
from mixdpo_ray.training.tokenizer import load_tokenizer, padding_id
from mixdpo_ray.training.window_shares import SharedWindow, share_window
from mixdpo_ray.training.windows import WindowSource, count_rows, read_windows, share_positions, verify_rows
from mixdpo_ray.training.world import World

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    job: TrainingJob
    world: World
    table: PreparedTable
    plan: Plan
    start: int  # where this process began
    steps: int
    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    reference: MovingReference
    held_out: HeldOutSets
    writer: CheckpointWriter
    log: MetricsLog | None  # rank 0's
    trackers: Trackers  # none but rank 0's
    listener: Listener

    @property
    def index(self) -> Index:
        return trained_index(self.table)

    @property
    def references(self) -> References | None:
        return self.reference.current

    def say(self, text: str) -> None:
        if self.world.leads:
            self.listener.on_phase(text)


def run_training(
    job: TrainingJob, world: World, windows: WindowSource = read_windows, listener: Listener | None = None
) -> dict[str, Any]:
    """Collective. torch.distributed is initialised by whoever started the workers, or there is one process."""
    seed_generators(job.train.seed)
    world = join_group(world, job.deepspeed.sequence_parallel)
    run, evaluation = _begin(job, world, listener or Silent())
    with closing(run.policy), run.trackers, run.writer.in_use():
        return _train(run, evaluation, windows)


def _train(run: Run, evaluation: dict[str, float], windows: WindowSource) -> dict[str, Any]:
    """`evaluation`: the one at the step where the run begins or continues."""
    job, world = run.job, run.world
    if run.start == 0:
        run.say("checking log-probs")
        check_scoring(run.policy, job, run.table, run.plan, run.references, world)
        evaluation = _evaluate(run, 0)
    metrics: dict[str, Any] = {}
    deadline = Deadline(job.stop_at, world)
    rows = windows(run.table, run.plan, world, run.policy.rows, run.start, run.steps)
    for step in range(run.start, run.steps):
        metrics = _step(run, step, rows)
        run.writer.advance()
        if evaluation_due(job, step + 1, run.steps):
            evaluation = _evaluate(run, step + 1)
        wanted = deadline.checkpoint_wanted(run.writer.seconds) or run.listener.checkpoint_wanted()
        if due := checkpoint_due(job, step + 1, run.steps, wanted=wanted, refreshes=step + 1 in run.reference.steps):
            run.writer.save(step + 1, evaluation if due.evaluated else {}, due.why, waits=due.waits)
        if deadline.over and step + 1 < run.steps:
            run.listener.at_location(None)
            return {"stopped": step + 1, "model": None}
    run.writer.finish()
    run.listener.at_location(None)
    return _summary(run, _export(run, evaluation), metrics, evaluation)


def _export(run: Run, evaluation: dict[str, float]) -> str | None:
    if not run.job.exports_model:
        return None
    run.say("exporting the model")
    before = run.log.first_evaluation if run.log is not None else None
    facts = CardFacts(run.plan, run.steps, before or {}, evaluation, chats=bool(run.tokenizer.chat_template))
    return export(run.policy, run.tokenizer, run.job, facts, run.world)


def seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _begin(job: TrainingJob, world: World, listener: Listener) -> tuple[Run, dict[str, float]]:
    """The run at the step where it continues, and the evaluation that was made there."""
    table = PreparedTable.open(job.prepared)
    plan = job.plan(table)
    check_warmup(plan, job.train.schedule)
    folder = storage.join(job.run, "checkpoints")
    waits = waits_for_judge(job.run, job.judge)
    checkpoints = Checkpoints(folder, job.fingerprint, job.train.checkpoints, world, listener.on_warning, waits)
    sweep_scratch(folder, world)
    found = checkpoints.find()
    if found is not None and world.leads:
        listener.on_resume(found.manifest.step, job.steps(plan))
    if found is None and job.start_from is not None:
        found = adopt(job, plan, checkpoints)
    if world.leads:
        listener.on_phase("loading the model")
    tokenizer = load_tokenizer(job.model)
    convert = found is not None and needs_conversion(found, world)
    if found is not None:
        refuse_other_world(found, world, job.train.optimizer.name)
    policy = make_policy(job.model, job.train, job.deepspeed, world, padding_id(tokenizer), from_universal=convert)
    policy.scorer.reads_typicality = job.needs_typicality
    warning = padding_warning(policy.scorer.why_padded, job.model, job.train)
    if world.leads and warning is not None:
        listener.on_warning(warning, once=True)
    if found is not None:
        load_checkpoint(policy, checkpoints, found, adapters=job.model.lora is not None)
    start = found.manifest.step if found else 0
    held_out = read_held_out_sets(job, world, table, plan, policy.rows)
    log = MetricsLog(job.run, start) if world.leads else None
    run = Run(
        job=job, world=world, table=table, plan=plan, start=start, steps=job.steps(plan), policy=policy,
        tokenizer=tokenizer, reference=MovingReference(job, table, plan, world, start), listener=listener,
        held_out=held_out, log=log, trackers=trackers_of(job, log, start, listener),
        writer=CheckpointWriter(policy, checkpoints, log, listener, adapters=job.model.lora is not None),
    )  # fmt: skip
    return run, dict(found.manifest.metrics) if found else {}


def _step(run: Run, step: int, rows: Iterator[pa.Table]) -> dict[str, Any]:
    """One optimizer step, and the line that it leaves."""
    refreshed = run.reference.prepare(step, run.policy, run.listener)
    began = time.perf_counter()
    first = step == run.start
    run.listener.at_location(f"step {step}, waiting for its pairs", slow=first)
    arrived = next(rows)
    waited = time.perf_counter() - began
    job, train, window = run.job, run.job.train, run.plan.window(step)
    if window.phase_step == 0:
        run.say(f"stage {window.stage}")
        if step and job.train.schedule.resets_optimizer:
            run.policy.reset_optimizer()
    rate = learning_rate(window, run.plan, train)
    run.policy.set_learning_rate(rate)
    per_device, chunk_tokens = train.per_device_train_batch_size, train.logp_chunk_tokens
    shared = share_window(window, run.index, run.world.shares, per_device, chunk_tokens, run.policy.rows)
    weights = LossWeights(shared.totals, window.stage, job.curriculum.sft_normalisation, job.curriculum.sft_weight)
    batches: Iterable[PairBatch] = _batches(run, shared, arrived, first)
    state: ObjectiveState = run.policy.objective_state
    try:
        if isinstance(job.objective, StepObjective):
            batches, state = with_statistics(run.policy, job.objective, shared, list(batches), _context(run))
        sums, norm = train_step(run.policy, job.objective, batches, weights, run.world, job.hard_objective)
    except NonFiniteError as error:
        raise NonFiniteError(f"step {step}: {error}; {_blamed(run, window)}") from None
    run.policy.objective_state.update(state)
    metrics = {
        **window_facts(window, run.plan, run.index, train.num_train_epochs),
        **step_metrics(sums, shared.totals, has_reference=run.references is not None),
        "learning_rate": rate,
        "grad_norm": norm,
        **speed_metrics(shared.totals, time.perf_counter() - began, waited),
        **run.writer.seconds_waited(),
        **refreshed,
    }
    _tell(run, metrics)
    return metrics


def _context(run: Run) -> StatisticsContext:
    return StatisticsContext(run.table, run.references, run.world, run.job.train.logp_chunk_tokens, run.job.train.seed)


def _batches(run: Run, shared: SharedWindow, rows: pa.Table, slow: bool) -> Iterator[PairBatch]:
    """This rank's micro-batches, after what arrived was compared with the plan."""
    window, share = shared.window, shared.shares[run.world.share]
    positions = share_positions(window, share)
    verify_rows(rows, positions, run.index, window.step)
    tokens = TokenRows.of(rows, positions)
    for number, micro in enumerate(share):
        run.listener.at_location(f"step {window.step}, micro-batch {number + 1} of {len(share)}", slow=slow)
        yield build_batch(
            tokens,
            window.positions[micro.rows],
            window.hard[micro.rows],
            run.references,
            weight=micro.weight,
            alone=window.alone[micro.rows],
            padding=run.policy.padding,
            device=run.world.torch_device,
            rows=run.policy.rows,
            row_slice=run.world.row_slice,
        )
    run.listener.at_location(f"step {window.step}, the update", slow=slow)


def _blamed(run: Run, window: Window) -> str:
    ids = [run.index.pair_id[position] for position in window.positions[:3]]
    look = "the learning rate" if window.step else "the settings of the objective, and at the model's weights"
    return f"the step's {len(window.positions)} pairs begin with {', '.join(ids)}; nothing was updated: look at {look}"


def _evaluate(run: Run, step: int) -> dict[str, float]:
    """Collective. The metrics after `step` steps; none without held-out pairs."""
    if not run.held_out:
        return {}
    run.say("evaluating")
    run.listener.at_location(f"the evaluation after step {step}", slow=True)
    evaluation = evaluate_held_out_sets(run.policy, run.job.objective, run.held_out, run.world)
    metrics = evaluation.metrics
    refuse_not_finite(metrics, step, run.job.objective)
    if run.world.leads and step in (0, run.steps):
        evaluation.pairs.write(storage.join(run.job.run, AFTER if step else BEFORE))
    _tell(run, {"kind": "eval", "step": step, **metrics})
    return metrics


def _tell(run: Run, metrics: dict[str, Any]) -> None:
    if run.log is None:
        return
    run.log.append(metrics)
    run.trackers.add(metrics)
    tell = run.listener.on_evaluation if metrics.get("kind") == "eval" else run.listener.on_step
    tell(metrics)
    if warning := run.log.gradient.observe(metrics):
        run.listener.on_warning(warning)


def _summary(run: Run, model: str | None, last: dict[str, Any], evaluation: dict[str, float]) -> dict[str, Any]:
    before = run.log.first_evaluation if run.log is not None else None
    if run.log is not None:
        run.log.upload()
    summary = {
        "steps": run.steps,
        **count_rows(run.plan, run.steps),
        "eval_before": {name: value for name, value in (before or {}).items() if name.startswith("eval_")},
        "eval_after": evaluation,
        "held_out": describe_held_out(run.job.run) if run.world.leads else None,
        "last_step": last,
        "peak_memory_gib": run.world.peak_memory_gib(),
        "model": model,
    }
    run.trackers.end(summary)
    return summary
