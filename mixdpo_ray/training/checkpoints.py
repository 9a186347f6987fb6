"""Checkpoints: complete or not there at all.

<run>/checkpoints/step-<k>/   the engine's shards, then manifest.json (size and SHA-256 of each file), then COMMITTED

Every rank moves its shards into the step's folder, which nothing ever writes twice (checkpoint_writer.py says when).
Only folders with the mark count; loading verifies every file, and falls back to the one before, loudly. What a killed
run left half-written is removed when the next one starts. Shards are pickles: the hashes find damage, not attacks, so
folders that others can write to are refused.
"""

from __future__ import annotations

import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import Field

from mixdpo_ray import storage
from mixdpo_ray.checksums import ChecksummedSettings, what_is_wrong
from mixdpo_ray.errors import CheckpointError, StorageError
from mixdpo_ray.settings import Settings
from mixdpo_ray.training.metric_names import is_a_loss
from mixdpo_ray.training.settings import CheckpointSettings
from mixdpo_ray.training.world import World
from mixdpo_ray.wording import first_line

MANIFEST, MARK = "manifest.json", "COMMITTED"
STEP = re.compile(r"step-(\d+)")
T = TypeVar("T")


class File(Settings):
    size: int
    sha256: str


class CheckpointManifest(ChecksummedSettings):
    step: int
    fingerprint: str
    world: int
    zero_stage: int
    metrics: dict[str, float]  # the evaluation at this step, if there was one
    files: dict[str, File]
    memory: dict[str, float | list[float]] = Field(default_factory=dict)  # a StepObjective's


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint whose every file was verified."""

    path: str
    manifest: CheckpointManifest


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run. Methods named after what all ranks do together are collective."""

    folder: str
    fingerprint: str
    settings: CheckpointSettings
    world: World
    warn: Callable[[str], None]
    needed: Callable[[int], bool] = lambda step: False  # besides the newest and the best

    def path(self, step: int) -> str:
        return storage.join(self.folder, f"step-{step}")

    def find(self) -> FoundCheckpoint | None:
        """Collective. The newest sound checkpoint; None for a run that never committed one."""
        if self.world.leads:
            self._sweep()
        self._together()
        steps = committed_steps(self.folder)
        self._together()
        for step in reversed(steps):
            problems = self._problems(self.path(step))
            if not problems:
                return FoundCheckpoint(self.path(step), read_manifest(self.path(step)))
            self._together()  # nobody still reads what is moved away
            if self.world.leads:
                self._set_aside(step, problems)
            self._together()
        if steps:
            raise CheckpointError(
                f"{self.folder}: none of {len(steps)} checkpoints is sound; restore one from a copy, or start over "
                "(output.fresh=true)"
            )
        return None

    def gather(self, files: Mapping[str, File]) -> dict[str, File]:
        """Collective. What all ranks moved into a step's folder. `files`: what this one did."""
        everyone = self.from_everyone({name: (file.size, file.sha256) for name, file in files.items()})
        return {name: File(size=size, sha256=sha) for part in everyone for name, (size, sha) in part.items()}

    def commit(
        self,
        step: int,
        zero_stage: int,
        files: Mapping[str, File],
        metrics: Mapping[str, float],
        memory: Mapping[str, float | list[float]],
    ) -> None:
        """Make a checkpoint of the files of all ranks, by rank 0 alone, and delete those that nobody needs any more."""
        absent = set(files) - set(storage.names(self.path(step)))
        if absent:
            raise StorageError(
                f"{self.path(step)} lacks {sorted(absent)[0]}, which another worker wrote: output.storage_path "
                "must be a folder or bucket that all nodes share"
            )
        manifest = CheckpointManifest(
            step=step,
            fingerprint=self.fingerprint,
            world=self.world.size,
            zero_stage=zero_stage,
            metrics=dict(metrics),
            files=dict(files),
            memory=dict(memory),
        )
        storage.write_bytes(storage.join(self.path(step), MANIFEST), manifest.to_json())
        storage.write_bytes(storage.join(self.path(step), MARK), b"")
        prune_checkpoints(self.folder, self.settings, self.needed)

    def _problems(self, path: str) -> list[str]:
        """Collective. Each rank reads its part of the files; all of them learn of every problem."""
        refuse_writable_by_others(path)
        refuse_writable_by_others(self.folder)
        try:
            manifest = read_manifest(path)
        except ValueError as error:
            return [f"{MANIFEST}: {what_is_wrong(error)}"]
        except StorageError as error:
            return [f"{MANIFEST}: {first_line(error)}"]
        if manifest.fingerprint != self.fingerprint:
            raise CheckpointError(
                f"{path} belongs to training {manifest.fingerprint}, this one is {self.fingerprint}: choose another "
                "output.name, or start over with output.fresh=true"
            )
        mine = sorted(manifest.files)[self.world.rank :: self.world.size]
        found = damages(path, manifest, mine)
        return [text for part in self.from_everyone(found) for text in part]

    def _set_aside(self, step: int, problems: list[str]) -> None:
        aside = f"{self.path(step)}.damaged"
        storage.delete(aside)
        storage.delete(storage.join(self.path(step), MARK))
        storage.move(self.path(step), aside)
        text = f"checkpoint step-{step} is damaged ({problems[0]}) and was set aside; using the one before it"
        print(f"warning: {text}", file=sys.stderr, flush=True)
        self.warn(text)

    def _sweep(self) -> None:
        """Remove what a killed run left half-written."""
        committed = {f"step-{step}" for step in committed_steps(self.folder)}
        for name in storage.names(self.folder):
            if name.startswith(".") or (STEP.fullmatch(name) and name not in committed):
                storage.delete(storage.join(self.folder, name))

    def from_everyone(self, mine: T) -> list[T]:
        """Collective. What each rank has, rank by rank."""
        import torch.distributed as dist

        everyone = [mine] * self.world.size
        dist.all_gather_object(everyone, mine)
        return everyone

    def _together(self) -> None:
        import torch.distributed as dist

        dist.barrier()


def prune_checkpoints(folder: str, settings: CheckpointSettings, needed: Callable[[int], bool]) -> None:
    """Delete all but the newest, the best, and what somebody still needs."""
    steps = committed_steps(folder)
    kept = set(steps[-settings.keep_last :])
    if (best := best_step(folder, settings.keep_best)) is not None:
        kept.add(best)
    for step in set(steps) - kept:
        if not needed(step):
            path = storage.join(folder, f"step-{step}")
            storage.delete(storage.join(path, MARK))  # first: a half-deleted folder must not count
            storage.delete(path)


def committed_steps(folder: str) -> list[int]:
    """Ascending. A folder without the mark does not exist for anyone."""
    numbers = [int(match[1]) for name in storage.names(folder) if (match := STEP.fullmatch(name))]
    return sorted(step for step in numbers if storage.exists(storage.join(folder, f"step-{step}", MARK)))


def best_step(folder: str, metric: str | None) -> int | None:
    """The step of the best committed checkpoint; a loss is better when lower, everything else when higher."""
    if metric is None:
        return None
    sign = -1 if is_a_loss(metric) else 1
    values = {step: _metrics(storage.join(folder, f"step-{step}")) for step in committed_steps(folder)}
    scored = {step: sign * metrics[metric] for step, metrics in values.items() if metric in metrics}
    return max(scored, key=lambda step: (scored[step], step)) if scored else None


def _metrics(path: str) -> dict[str, float]:
    try:
        return read_manifest(path).metrics
    except ValueError as error:
        raise CheckpointError(
            f"{path}/{MANIFEST} is damaged ({what_is_wrong(error)}): remove {path}, and the same command continues"
        ) from error


def read_manifest(path: str) -> CheckpointManifest:
    """Raises a ValueError where it is damaged."""
    return CheckpointManifest.from_json(storage.read_bytes(storage.join(path, MANIFEST)))


def refuse_writable_by_others(path: str) -> None:
    if storage.is_local(path) and storage.local(path).stat().st_mode & stat.S_IWOTH:
        raise CheckpointError(
            f"{path} can be written by every user, and loading a checkpoint runs what is in it: chmod o-w {path}"
        )


def damages(path: str, manifest: CheckpointManifest, names: Iterable[str] | None = None) -> list[str]:
    """What is wrong with these files of a checkpoint, or with any."""
    asked = manifest.files if names is None else names
    return [text for name in asked if (text := _damage(path, name, manifest.files[name])) is not None]


def _damage(path: str, name: str, expected: File) -> str | None:
    file = storage.join(path, name)
    if not storage.exists(file):
        return f"{name} is missing"
    size, sha256 = storage.digest(file)
    if size != expected.size:
        return f"{name} has {size} bytes, not {expected.size}"
    return None if sha256 == expected.sha256 else f"{name} has other content than was written"
