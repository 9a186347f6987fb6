"""What a comparison leaves for people: results.csv, table.md and comparison.png."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.run_record import RECIPE, SUMMARY
from mixdpo_ray.comparison.arms import Arm, all_arms
from mixdpo_ray.comparison.inputs import Unit
from mixdpo_ray.comparison.job_sequence import failure
from mixdpo_ray.comparison.picture import picture
from mixdpo_ray.comparison.results import Outcome, ResultRow, result_rows, write_results
from mixdpo_ray.comparison.table import notes_text, table_text
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.storage import join
from mixdpo_ray.training.held_out_pairs import AFTER, BEFORE, HeldOutPairs

CSV, TABLE, PICTURE = "results.csv", "table.md", "comparison.png"


class CompareOutput:
    def __init__(self, recipe: Recipe, folder: str):
        """`folder`: as the person wrote it."""
        self.recipe, self.folder = recipe, folder
        self.began, self.before = time.monotonic(), 0.0

    def begin(self) -> None:
        """What earlier attempts took counts too."""
        path = join(self.folder, SUMMARY)
        if storage.exists(path):
            self.before = json.loads(storage.read_bytes(path))["seconds"]

    def claim(self, units: Sequence[Unit]) -> None:
        """Tell jobs/clean.py which tables and models are in use."""
        models = {arm.recipe.model.model_dump_json() for unit in units for arm in unit.arms}
        record = {
            "recipe": self.recipe.to_dict(),
            "identity": {"prepared": sorted({digest for unit in units for digest in unit.digests})},
            "models": [json.loads(model) for model in sorted(models)],
        }
        storage.write_bytes(join(self.folder, RECIPE), json.dumps(record, indent=2).encode())

    @property
    def seconds(self) -> float:
        return round(self.before + time.monotonic() - self.began, 1)

    @property
    def untrained_folders(self) -> list[str]:
        return [storage.absolute(join(self.folder, self._untrained(seed).folder)) for seed in self.recipe.compare.seeds]

    @property
    def against(self) -> str:
        return self.recipe.compare.against or next(iter(self.recipe.compare.arms))

    def outcomes(self) -> list[Outcome]:
        found = [self._outcome(arm) for arm in all_arms(self.recipe)]
        if self.recipe.compare.untrained is not None:
            found = [*(self._untouched(seed) for seed in self.recipe.compare.seeds), *found]
        place = {name: number for number, name in enumerate(self.recipe.compare.names)}
        return sorted(found, key=lambda one: (place[one.arm], one.seed))

    def rows(self) -> list[ResultRow]:
        each = self.recipe.compare
        return result_rows(self.outcomes(), each.names, self.against, same_pairs=each.world is None)

    def write(self) -> None:
        self.write_tables()
        rows = self.rows()
        if any(row.values(self.metric) for row in rows):
            storage.write_bytes(join(self.folder, PICTURE), picture(rows, self.metric, self.against))

    def write_tables(self) -> None:
        """Write the outcomes, their table and the summary, at any time; what was written before is replaced whole."""
        storage.write_bytes(join(self.folder, CSV), write_results(self.outcomes()).encode())
        storage.write_bytes(join(self.folder, TABLE), f"{self._text()}\n".encode())
        storage.write_bytes(join(self.folder, SUMMARY), json.dumps({"seconds": self.seconds}).encode())

    def describe(self) -> str:
        """The closing lines."""
        return "\n".join(
            [
                self._text(),
                "",
                f"  outcomes  {self.folder}/{CSV}",
                f"  table     {self.folder}/{TABLE}",
                f"  picture   {self.folder}/{PICTURE}",
            ]
        )

    @property
    def metric(self) -> str:
        return self.recipe.compare.measure.name

    def _text(self) -> str:
        rows = self.rows()
        outcomes = [one for row in rows for one in row.outcomes]
        ended = sum(one.state != "missing" for one in outcomes)
        minutes, seconds = divmod(round(self.seconds), 60)
        head = f"{self.recipe.output.name}: {ended} of {len(outcomes)} runs ended, {minutes} min {seconds} s in all"
        return "\n".join([head, "", table_text(rows, self.metric, self.against), "", notes_text(rows, self.metric)])

    def _untrained(self, seed: int) -> Arm:
        return Arm(self.recipe.compare.untrained or "", seed, self.recipe)

    def _outcome(self, arm: Arm) -> Outcome:
        folder = join(self.folder, arm.folder)
        if reason := failure(folder):
            return Outcome(arm.name, arm.seed, failure=reason)
        summary = _summary(folder)
        if summary is None:
            return Outcome(arm.name, arm.seed)
        metrics = {**_finite(summary["eval_after"]), **summary.get("judged", {})}
        return Outcome(arm.name, arm.seed, metrics, summary["seconds"], pairs=HeldOutPairs.read(join(folder, AFTER)))

    def _untouched(self, seed: int) -> Outcome:
        """Judged in its world; elsewhere as a run found it before its first step."""
        metrics: dict[str, float] = {}
        pairs = None
        arms = [arm for arm in all_arms(self.recipe) if arm.seed == seed]
        for arm in sorted(arms, key=lambda arm: arm.name != self.against):
            if summary := _summary(join(self.folder, arm.folder)):
                metrics |= _finite(summary["eval_before"])
                pairs = HeldOutPairs.read(join(self.folder, arm.folder, BEFORE))
                break
        summary = _summary(join(self.folder, self._untrained(seed).folder))
        return Outcome(self._untrained(seed).name, seed, {**metrics, **(summary or {}).get("judged", {})}, pairs=pairs)


def _summary(folder: str) -> dict[str, Any] | None:
    path = join(folder, SUMMARY)
    return json.loads(storage.read_bytes(path)) if storage.exists(path) else None


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
