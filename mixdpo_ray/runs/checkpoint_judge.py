"""Checkpoints judged beside the training that leaves them, which waits for none of it.

A thread of the driver looks for them. Where the cluster has a CPU, or a GPU, that neither the workers nor their readers
need, a task puts the model together, lets it answer and goes; the judge is asked by another task. What could not be
judged beside the training is judged after it, or by the same command repeated: the training has its summary by then.
Ray Train has such a thing (ValidationConfig): its tasks have to be waited for before the training counts as ended, a
failure is only logged, and shards would still have to be put together.

Checkpoints stay on disk until they have answered. A judge that fails is a warning.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from mixdpo_ray import storage
from mixdpo_ray.bar import say, waiting
from mixdpo_ray.cluster.events import Noted, Warned
from mixdpo_ray.cluster.node_labels import gpu_node_options
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.cluster.run_record import RunRecord, differences
from mixdpo_ray.errors import MixDPOError, RunConflictError
from mixdpo_ray.evaluation.held_out_answers import HeldOutPrompts, read_keyed_answers, write_keyed_answers
from mixdpo_ray.evaluation.judged_model import AnswerJudging, answer_judging, judging_identity, metrics_in_words
from mixdpo_ray.judges.judge import ChatJudge, open_judge
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.training.checkpoints import committed_steps, prune_checkpoints
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.judged_steps import (
    answers_file,
    forget_judgements,
    judged_folder,
    judgement_file,
    read_judge,
    read_judgements,
    steps_to_judge,
    waits_for_judge,
    write_judge,
    write_judgement,
)
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.wording import first_line

_SECONDS_BETWEEN_LOOKS = 1.0
_FAILURES = (MixDPOError, ray.exceptions.RayError, OSError, RuntimeError)  # of the judge, a node, memory, the disk


@dataclass
class CheckpointJudge:
    recipe: Recipe
    job: TrainingJob
    steps: int  # of the whole run
    judging: AnswerJudging
    failed: set[int] = field(default_factory=set)  # beside the training: tried again after it
    training_ended: threading.Event = field(default_factory=threading.Event)

    @property
    def due(self) -> list[int]:
        return steps_to_judge(self.job.judge, self.steps)

    @property
    def left(self) -> list[int]:
        """Steps that nothing was said of yet."""
        return [step for step in self.due if not storage.exists(judgement_file(self.job.run, step))]

    @property
    def _lost(self) -> list[int]:
        """Those whose models are no longer there to answer: judging was asked for when they had been trained."""
        there = {*committed_steps(RunRecord(self.job.run).checkpoints), self.steps}
        return [
            step for step in self.left if step not in there and not storage.exists(answers_file(self.job.run, step))
        ]

    @contextmanager
    def beside(self, run_actor: Any) -> Iterator[None]:
        """Judge what comes while the body trains. A judge that is a model of this cluster has to wait for its room."""
        assert self.recipe.answers.judge is not None
        if self.recipe.answers.judge.engine == "hf":
            yield
            return
        with open_judge(self.recipe) as judge:
            thread = threading.Thread(target=self._follow, args=(judge, run_actor), daemon=True)
            thread.start()
            try:
                yield
            finally:
                self.training_ended.set()
            thread.join(0.3)
            with waiting("judge: waiting for what is being judged") if thread.is_alive() else nullcontext():
                while thread.is_alive():
                    thread.join(0.3)  # Ctrl-C is heard in between

    def rest(self) -> None:
        """Judge what is left. The first failure ends it with a warning."""
        lost = self._lost
        if lost:
            say(f"warning: not judged: step {', '.join(map(str, lost))}: their checkpoints were not kept")
        left = [step for step in self.left if step not in lost]
        if not left:
            return
        try:
            with open_judge(self.recipe) as judge:
                for step in left:
                    with waiting(f"judge: checkpoint of step {step}, {len(self.left) - len(lost)} to go"):
                        said = self._judge(step, judge)
                    say(f"judge: {said}")
        except _FAILURES as error:
            told = ", ".join(str(step) for step in self.left if step not in lost)
            say(f"warning: not judged: step {told}: {first_line(error)}; repeat the command to try it again")
        settings, run = self.job.train.checkpoints, self.job.run
        prune_checkpoints(RunRecord(run).checkpoints, settings, waits_for_judge(run, self.job.judge))

    def _follow(self, judge: ChatJudge, run_actor: Any) -> None:
        while not self.training_ended.wait(_SECONDS_BETWEEN_LOOKS):
            there = set(committed_steps(RunRecord(self.job.run).checkpoints))
            for step in self.left:
                if self.training_ended.is_set() or step in self.failed:
                    continue
                answered = storage.exists(answers_file(self.job.run, step))
                if answered or (step in there and step < self.steps and self._has_room()):
                    self._try(step, judge, run_actor)

    def _try(self, step: int, judge: ChatJudge, run_actor: Any) -> None:
        try:
            run_actor.tell.remote(Noted(self._judge(step, judge)))
        except _FAILURES as error:  # nothing of it may end the training
            self.failed.add(step)
            run_actor.tell.remote(Warned(f"step {step} is not judged yet: {first_line(error)}"))

    def _has_room(self) -> bool:
        """Whether there is more than the training and its readers may ever need."""
        cluster, gpu = self.recipe.cluster, self.judging.prompts.gpu
        free = ray.available_resources()
        spare = ray.cluster_resources().get("CPU", 0.0) - cluster.cpus_for(cluster.most_workers)
        return spare >= 1 and free.get("CPU", 0.0) >= 1 and (not gpu or free.get("GPU", 0.0) >= 1)

    def _judge(self, step: int, judge: ChatJudge) -> str:
        """What was said, in words."""
        on_gpu = {"num_gpus": 1, **gpu_node_options(self.recipe.cluster)} if self.judging.prompts.gpu else {}
        run, needs = self.job.run, {"num_cpus": 1, **on_gpu}
        with plain_errors():
            if not storage.exists(answers_file(run, step)):
                work: Any = ray.remote(max_retries=1, **needs)(leave_answers_of_step)
                ray.get(work.remote(self.judging.prompts, self.job, step, step == self.steps))
            if self.recipe.answers.judge is not None and self.recipe.answers.judge.engine == "hf":
                metrics = judge_step(self.judging, judge, run, step)
            else:  # in a process of its own: its progress would draw over the training's
                ask: Any = ray.remote(num_cpus=0, max_retries=0)(judge_step)
                metrics = ray.get(ask.remote(self.judging, judge, run, step))
        return f"step {step}: {metrics_in_words(metrics)}"


def checkpoint_judge(recipe: Recipe, job: TrainingJob, steps: int) -> CheckpointJudge | None:
    """None where checkpoints are not judged, or all are. The model before training answers first. Ray is connected."""
    if job.judge is None:
        return None
    if RunRecord(job.run).finished(steps) is None:  # of a finished run, checkpoints may have gone
        forget_judgements(job.run, max(committed_steps(RunRecord(job.run).checkpoints), default=0))
    _refuse_another_judge(recipe, job)
    if len(read_judgements(job.run, steps_to_judge(job.judge, steps))) == len(steps_to_judge(job.judge, steps)):
        return None
    judging = answer_judging(recipe, job.judge.metrics, job.judge.prompts)
    return CheckpointJudge(recipe, job, steps, judging)


def _refuse_another_judge(recipe: Recipe, job: TrainingJob) -> None:
    """One line of numbers is by one judge, of answers that were drawn in one way."""
    assert job.judge is not None, "whoever calls has looked"
    now = {**judging_identity(recipe), **job.judge.model_dump(mode="json", exclude={"every_steps"})}
    before = read_judge(job.run)
    if before is not None and (changes := differences(before, now)):
        raise RunConflictError(
            f"{job.run} was judged in another way ({'; '.join(changes)}): judge it as before, or remove "
            f"{judged_folder(job.run)} to have what is left of it judged anew"
        )
    write_judge(job.run, now)


def last_judgement(job: TrainingJob, steps: int) -> dict[str, Any]:
    """What was said of the trained model, for the summary of its run; empty where there is none."""
    judged = read_judgements(job.run, [steps]) if job.judge is not None else []
    return {"judged": {name: value for name, value in judged[0].items() if "/" in name}} if judged else {}


def leave_answers_of_step(prompts: HeldOutPrompts, job: TrainingJob, step: int, exported: bool) -> None:
    """A task: put a checkpoint's model together, and write down what it answers. `exported`: it is the run's own."""
    from mixdpo_ray.training.checkpoint_export import export_checkpoint

    record = RunRecord(job.run)
    if exported:
        write_keyed_answers(answers_file(job.run, step), prompts.answers_of(record.model))
        return
    with tempfile.TemporaryDirectory(prefix="mixdpo_ray-") as folder:
        model: ModelSettings = job.model
        export_checkpoint(storage.join(record.checkpoints, f"step-{step}"), model, Path(folder))
        write_keyed_answers(answers_file(job.run, step), prompts.answers_of(folder))


def judge_step(judging: AnswerJudging, judge: ChatJudge, run: str, step: int) -> dict[str, float]:
    answers = read_keyed_answers(answers_file(run, step))
    assert answers is not None, "they were written before"
    metrics = dict(judging.judged(answers, judge).metrics)
    write_judgement(run, step, metrics)
    return metrics
