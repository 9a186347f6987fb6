"""The files inside a checkpoint: the engine's shards and the state of the random generators, written and read back."""

from __future__ import annotations

import hashlib
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from mixdpo_ray import storage
from mixdpo_ray.errors import CheckpointError, StorageError
from mixdpo_ray.training.checkpoints import Checkpoints, FoundCheckpoint
from mixdpo_ray.training.engine import Policy, convert_shards
from mixdpo_ray.training.optimizer import ANY_WORLD
from mixdpo_ray.training.world import World
from mixdpo_ray.wording import first_line

TAG = "shards"


def load_checkpoint(policy: Policy, checkpoints: Checkpoints, found: FoundCheckpoint, *, adapters: bool) -> None:
    """Collective. Bit for bit what was saved, at the same number of workers; otherwise by the engine's conversion."""
    with _local_copy(found) as folder:
        source = folder
        if needs_conversion(found, checkpoints.world):
            source = _convert(checkpoints, folder)
        if not policy.load(str(source.parent), source.name, adapters=adapters):
            raise CheckpointError(f"{found.path}: the engine could not load it with these settings")
        _restore_random(folder, checkpoints.world)
    state = found.manifest.memory
    policy.objective_state.update({name: torch.tensor(values, dtype=torch.float64) for name, values in state.items()})
    dist.barrier()


def needs_conversion(found: FoundCheckpoint, world: World) -> bool:
    """Tell whether shards must be converted: without ZeRO every rank holds all, and any number of them can load it."""
    return found.manifest.world != world.size and found.manifest.zero_stage > 0


def refuse_other_world(found: FoundCheckpoint, world: World, optimizer: str) -> None:
    """The engine converts AdamW's shards alone."""
    if optimizer not in ANY_WORLD and needs_conversion(found, world):
        raise CheckpointError(
            f"{found.path} was written by {found.manifest.world} workers and there are {world.size}: what "
            f"train.optimizer.name {optimizer} keeps continues on as many only: set cluster.num_workers="
            f"{found.manifest.world}, or start over (output.fresh=true)"
        )


def write_shards(policy: Policy, scratch: Path, world: World, *, adapters: bool) -> list[Path]:
    """Collective. This rank's files of a checkpoint, in a scratch folder."""
    shards = scratch / TAG
    with _disk_full_explained(str(scratch)):
        shards.mkdir(parents=True)
        policy.save(str(scratch), TAG, adapters=adapters)
        torch.save(_random_states(), shards / f"random-{world.rank:05d}.pt")
    return sorted(file for file in shards.iterdir() if file.suffix == ".pt")


@contextmanager
def _disk_full_explained(path: str) -> Iterator[None]:
    with storage.explained(path):
        try:
            yield
        except RuntimeError as error:
            # how torch.save says that a write failed
            if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
                raise
            raise StorageError(
                f"{path}: a checkpoint could not be written ({first_line(error)}); the disk may be full: free "
                "space (jobs/clean.py lists what is unused) and repeat"
            ) from error


def scratch_folder(folder: str, step: int, world: World) -> Path:
    """A folder of this rank alone; on the same disk where storage is local, so that moving is renaming."""
    if storage.is_local(folder):
        return storage.local(storage.join(folder, f".writing-step-{step}-rank-{world.rank}"))
    return Path(tempfile.mkdtemp(prefix=_scratch_prefix(folder)))


def sweep_scratch(folder: str, world: World) -> None:
    """Remove what a killed run left on this machine; what it left in storage is the checkpoints' to sweep."""
    if world.local_rank == 0 and not storage.is_local(folder):
        for left in Path(tempfile.gettempdir()).glob(f"{_scratch_prefix(folder)}*"):
            storage.delete(str(left))


def _scratch_prefix(folder: str) -> str:
    return f"mixdpo-checkpoint-{hashlib.sha256(folder.encode()).hexdigest()[:12]}-"


@contextmanager
def _local_copy(found: FoundCheckpoint) -> Iterator[Path]:
    if storage.is_local(found.path):
        yield Path(storage.absolute(found.path))
        return
    with tempfile.TemporaryDirectory(prefix="mixdpo-checkpoint-") as temporary:
        folder = Path(temporary) / f"step-{found.manifest.step}"
        storage.copy(found.path, str(folder))
        yield folder


def _convert(checkpoints: Checkpoints, folder: Path) -> Path:
    """Shards of another number of workers, in the universal format. On shared storage rank 0 does it for all."""
    shared = storage.is_local(checkpoints.folder)
    universal = Path(storage.absolute(checkpoints.folder)) if shared else folder.parent
    universal = universal / f".universal-{folder.name}"
    if checkpoints.world.leads or not shared:
        convert_shards(folder, universal)
    dist.barrier()
    return universal


def _random_states() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore_random(folder: Path, world: World) -> None:
    """A rank that did not exist before takes over the state of one that did."""
    files = sorted(folder.glob("random-*.pt"))
    states = torch.load(files[world.rank % len(files)], weights_only=False)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
