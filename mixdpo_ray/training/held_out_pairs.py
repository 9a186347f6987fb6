"""What each held-out pair came to, in a small file beside a run's metrics: before its first step, and after its last.

Means hide how much of a difference is the draw of the pairs. Two runs that were judged on the same pairs are compared
pair by pair, and for that their values are kept: about 50 bytes a pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.errors import StorageError
from mixdpo_ray.intervals import Estimate, kind_of
from mixdpo_ray.training.metric_names import of_set, set_and_metric

BEFORE, AFTER = "held_out_before.parquet", "held_out_after.parquet"
SET = "set"  # the column with the name of a pair's set, where there are further ones than the main one
DESCRIBED = ("eval_rewards/accuracies", "eval_rewards/margins", "eval_logps/chosen_drift")


@dataclass(frozen=True)
class HeldOutPairs:
    """Rows in the order of their ids, so that two runs on the same pairs have the same rows."""

    pair_id: Sequence[str]
    columns: Mapping[str, NDArray[Any]]  # measures by name, "bucket", "hard", and maybe SET

    @classmethod
    def of(cls, pair_id: Sequence[str], columns: Mapping[str, NDArray[Any]]) -> Self:
        order = sorted(range(len(pair_id)), key=pair_id.__getitem__)
        return cls([pair_id[row] for row in order], {name: values[order] for name, values in columns.items()})

    def write(self, path: str) -> None:
        """All of it or nothing."""
        narrow = {
            name: values.astype(np.float32) if values.dtype == np.float64 else values
            for name, values in self.columns.items()
        }
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"pair_id": list(self.pair_id), **narrow}), buffer, write_page_checksum=True)
        storage.write_bytes(path, buffer.getvalue())

    @classmethod
    def read(cls, path: str) -> Self | None:
        """None where there is no file: earlier versions left none."""
        if not storage.exists(path):
            return None
        content = pa.BufferReader(storage.read_bytes(path))
        try:
            table = pq.read_table(content, page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise StorageError(f"{path} is damaged: delete it, intervals then do without it") from error
        columns = {name: table[name].to_numpy() for name in table.column_names if name != "pair_id"}
        return cls(table["pair_id"].to_pylist(), columns)

    def values(self, metric: str) -> tuple[list[str], NDArray[np.float64]] | None:
        """The ids and values of the pairs that a metric is a mean of; None where it is no such mean."""
        of_set, plain = set_and_metric(metric)
        name, mask = self._named(plain.removeprefix("eval_"))
        mask = mask & self.of_set(of_set)
        measured = self._measured(name)
        if measured is None or not mask.any():
            return None
        return list(compress(self.pair_id, mask)), measured[mask].astype(np.float64)

    @property
    def sets(self) -> list[str]:
        """The names of the sets that have pairs; the main one's is empty."""
        return sorted(set(self.columns[SET].tolist())) if SET in self.columns else [""]

    def of_set(self, name: str) -> NDArray[np.bool_]:
        if SET in self.columns:
            return np.asarray(self.columns[SET] == name)
        return np.full(len(self.pair_id), not name)

    def _named(self, name: str) -> tuple[str, NDArray[np.bool_]]:
        """The measure, and which pairs it is of: a bucket's, easy or hard ones, all."""
        measure, _, group = name.rpartition("/")
        if group.startswith("margin_"):
            return measure, self.columns["bucket"] == group
        if group in ("easy", "hard"):
            measure = "nll/chosen" if (measure, group) == ("loss", "hard") else measure
            return measure, self.columns["hard"].astype(bool) == (group == "hard")
        return name, np.ones(len(self.pair_id), np.bool_)

    def _measured(self, name: str) -> NDArray[Any] | None:
        if name == "rewards/margins" and "rewards/chosen" in self.columns:
            return np.asarray(self.columns["rewards/chosen"] - self.columns["rewards/rejected"])
        return self.columns.get(name)


def matrix(runs: Iterable[HeldOutPairs | None], metric: str) -> tuple[list[str], NDArray[np.float64]] | None:
    """The ids of the pairs, and values [runs, pairs]; None unless every run was judged on the same pairs."""
    found = [None if run is None else run.values(metric) for run in runs]
    known = [values for values in found if values is not None]
    if not found or len(known) < len(found) or any(ids != known[0][0] for ids, _ in known):
        return None
    return known[0][0], np.stack([values for _, values in known])


def describe_held_out(run: str) -> dict[str, Any] | None:
    """A run's held-out metrics with the sampling error of their pairs, for its summary; None without the files."""
    before, after = (HeldOutPairs.read(storage.join(run, name)) for name in (BEFORE, AFTER))
    if before is None or after is None:
        return None
    metrics = {}
    for metric in (of_set(metric, name) for name in after.sets for metric in DESCRIBED):
        if (both := matrix([before, after], metric)) is not None:
            _, values = both
            change = Estimate.crossed(values[1:] - values[:1], kind_of(metric, difference=True))
            ends = [Estimate.crossed(one[np.newaxis], kind_of(metric)) for one in values]
            halves = {"before": ends[0].half, "after": ends[1].half, "change": change.half}
            metrics[metric] = {name: half if np.isfinite(half) else None for name, half in halves.items()}
    counts = {name: int(after.of_set(name).sum()) for name in after.sets}
    further = {name: count for name, count in counts.items() if name}
    return {"pairs": counts.get("", 0), "half_intervals": metrics, **({"sets": further} if further else {})}
