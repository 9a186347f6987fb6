"""Small files of every kind that training and scoring read, and what becomes of them when single bits are flipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow as pa

from mixdpo_ray.errors import MixDPOError
from mixdpo_ray.playground.files import MadeFiles, checksums_in, read_made_files
from mixdpo_ray.search.journal import open_journal
from mixdpo_ray.tables.keyed_table import KeyedTable
from mixdpo_ray.tables.prepared_table import (
    PREPARED_SCHEMA,
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    write_index,
    write_part,
)
from mixdpo_ray.tables.reference_table import ReferenceTable, TokenReferenceTable
from mixdpo_ray.training.checkpoints import CheckpointManifest, File, read_manifest
from tests.measure.scale.rows import Draw, scored

PAIRS, FRACTION = 96, 0.1  # of the length of real answers


@dataclass(frozen=True)
class Kind:
    name: str
    path: Path
    read: Callable[[], object]  # what is made of the content; equal where the content is
    refusals: tuple[type[Exception], ...] = (MixDPOError,)


def kinds(folder: Path) -> Iterator[Kind]:
    table = make_table(folder / "prepared")
    (part,) = table.parts("train")
    everything = np.arange(PAIRS)
    yield Kind("prepared part", Path(part.path), lambda: table.read("train", everything))
    index = folder / "prepared" / "train" / "index.parquet"
    yield Kind("index", index, lambda: _index(PreparedTable.open(table.folder)))
    yield Kind("prepared manifest", folder / "prepared" / "manifest.json", lambda: PreparedTable.open(table.folder))
    ids = list(table.index("train").pair_id)
    for name, store in _keyed(folder, ids):
        (keyed,) = Path(store.folder).glob("part-*")
        opened = type(store).open
        yield Kind(f"{name} part", keyed, lambda store=store, opened=opened: opened(store.folder).rows)  # type: ignore[misc]
        manifest = Path(store.folder) / "manifest.json"
        yield Kind(f"{name} manifest", manifest, lambda store=store, opened=opened: opened(store.folder).manifest)  # type: ignore[misc]
    yield _checkpoint(folder / "step-7")
    yield from _playground(folder / "world")
    yield _journal(folder / "study" / "optuna.journal")


def make_table(folder: Path, pairs: int = PAIRS, fraction: float = FRACTION) -> PreparedTable:
    draw = Draw(0, pairs, fraction)
    columns = scored(draw, draw.generator())
    columns |= {"position": np.arange(pairs), "margin": np.linspace(9, 0, pairs)}
    rows = pa.table({name: columns[name] for name in PREPARED_SCHEMA.names}, PREPARED_SCHEMA)
    part = write_part(str(folder), "train", rows)
    index = write_index(str(folder), "train", index_rows(rows))
    split = SplitFacts(rows=pairs, first_positions=(0,), seals=(part.seal,), index_seal=index)
    commit(str(folder), Manifest(fingerprint="f", splits={"train": split}, rows_in=pairs, rows_kept=pairs))
    return PreparedTable.open(str(folder))


def _index(table: PreparedTable) -> list[Any]:
    index = table.index("train")
    numbers = (index.margin, index.prompt_length, index.chosen_length, index.rejected_length)
    return [list(index.pair_id), *(array.tolist() for array in numbers)]


def _keyed(folder: Path, ids: list[str]) -> Iterator[tuple[str, KeyedTable]]:
    draw = np.random.default_rng(0)
    sums = {name: draw.normal(-90, 30, len(ids)).astype(np.float32) for name in ReferenceTable.own_columns}
    references = ReferenceTable.create(str(folder / "reference"), "f", {"model": "m"})
    references.append(pa.table({"pair_id": ids, **sums}))
    yield "reference", references
    lists = {name: [draw.random(9, np.float32) for _ in ids] for name in TokenReferenceTable.own_columns}
    tokens = TokenReferenceTable.create(str(folder / "reference-tokens"), "f")
    tokens.append(pa.table({"pair_id": ids, **lists}))
    yield "token reference", tokens
    scores = KeyedTable.create(str(folder / "scores"), "f", columns=("reward",))
    scores.append(pa.table({"pair_id": ids, "reward": draw.normal(size=len(ids))}))
    yield "scores", scores


def _checkpoint(folder: Path) -> Kind:
    files = {f"rank_{rank}.pt": File(size=rank, sha256=f"{rank:064x}") for rank in range(4)}
    manifest = CheckpointManifest(
        step=7, fingerprint="f", world=4, zero_stage=2, metrics={"eval_loss": 0.6931}, files=files, memory={"a": [0.5]}
    )
    folder.mkdir()
    (folder / "manifest.json").write_bytes(manifest.to_json())
    # whoever finds checkpoints sets one aside for a ValueError, and takes the one before it
    return Kind("checkpoint manifest", folder / "manifest.json", lambda: read_manifest(str(folder)), (ValueError,))


def _playground(folder: Path) -> Iterator[Kind]:
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "pairs.jsonl").write_text('{"prompt": "sort b a", "chosen": "a b"}\n' * 50)
    mark = folder / "world.json"
    mark.write_bytes(MadeFiles(fingerprint="f", settings={"seed": 1}, files=checksums_in(folder)).to_json())
    for name in ("world.json", "pairs.jsonl", "base/model.safetensors"):
        yield Kind(f"playground {name}", folder / name, lambda: read_made_files(mark))


def _journal(path: Path) -> Kind:
    def trials() -> list[Any]:
        study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(open_journal(path)))
        return [(trial.number, trial.state, trial.params, trial.values) for trial in study.trials]

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.JournalStorage(open_journal(path))
    study = optuna.create_study(study_name="s", storage=storage, sampler=optuna.samplers.RandomSampler(0))
    study.optimize(lambda trial: trial.suggest_float("beta", 0.01, 1.0), n_trials=5)
    return Kind("study's journal", path, trials)


def flip(kind: Kind, bits: np.ndarray[Any, np.dtype[np.int64]]) -> Counter[str]:
    """What became of each flipped bit. The file is as it was afterwards."""
    found, whole, before = Counter[str](), kind.path.read_bytes(), kind.read()
    for bit in bits.tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        kind.path.write_bytes(damaged)
        found[_outcome(kind, before)] += 1
    kind.path.write_bytes(whole)
    return found


def _outcome(kind: Kind, before: object) -> str:
    try:
        after = kind.read()
    except kind.refusals as error:
        one_line = isinstance(error, ValueError) or (kind.path.name in str(error) and "\n" not in str(error))
        return "refused" if one_line else "not named"
    except Exception as error:  # noqa: BLE001 (what is counted)
        return f"traceback {type(error).__name__}"
    return "without effect" if after == before else "silent"
