"""What a comparison leaves for people: results.csv, table.md and comparison.png."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.run_record import RunRecord, differences
from mixdpo_ray.comparison.arms import Arm, all_arms, of_seed, windows_left_out
from mixdpo_ray.comparison.inputs import Unit
from mixdpo_ray.comparison.judged_arms import is_judged
from mixdpo_ray.comparison.picture import picture
from mixdpo_ray.comparison.results import Outcome, ResultRow, result_rows, write_results
from mixdpo_ray.comparison.table import notes_text, table_text
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.evaluation.judged_model import JUDGED_FILE, judging_identity
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.storage import join
from mixdpo_ray.training.held_out_pairs import AFTER, BEFORE, HeldOutPairs
from mixdpo_ray.wording import duration_text

CSV, TABLE, PICTURE = "results.csv", "table.md", "comparison.png"


class CompareOutput:
    def __init__(self, recipe: Recipe, folder: str):
        """`folder`: as the person wrote it."""
        self.recipe, self.folder, self.record = recipe, folder, RunRecord(folder)
        self.began, self.before = time.monotonic(), 0.0

    def begin(self) -> None:
        """What earlier attempts took counts too."""
        if summary := self.record.summary():
            self.before = summary["seconds"]

    def refuse_another_judge(self) -> None:
        """What one judge said stays in the summaries, and is not to be compared with what another one says."""
        before = self._judged_before
        if before is None or not is_judged(self.recipe):
            return
        if changes := differences(before, judging_identity(self.recipe)):
            raise RunConflictError(
                f"{self.folder} was judged in another way ({'; '.join(changes)}): choose another output.name, or "
                "output.fresh=true to delete it and start over"
            )

    @property
    def _judged_before(self) -> dict[str, Any] | None:
        before = self.record.recorded()
        return None if before is None else before.identity.get("judge")

    def claim(self, units: Sequence[Unit]) -> None:
        """Tell jobs/clean.py which tables and models are in use."""
        models = {arm.recipe.model.model_dump_json() for unit in units for arm in unit.arms}
        identity: dict[str, Any] = {"prepared": sorted({digest for unit in units for digest in unit.digests})}
        judged = judging_identity(self.recipe) if is_judged(self.recipe) else self._judged_before
        identity |= {"judge": judged} if judged else {}
        self.record.write_recipe(self.recipe, identity, [json.loads(model) for model in sorted(models)])

    @property
    def seconds(self) -> float:
        return round(self.before + time.monotonic() - self.began, 1)

    @property
    def untrained_folders(self) -> list[str]:
        return [storage.absolute(join(self.folder, self._untrained(seed).folder)) for seed in self.recipe.compare.seeds]

    @property
    def arm_records(self) -> list[tuple[Arm, RunRecord]]:
        return [(arm, self._record(arm)) for arm in all_arms(self.recipe)]

    @property
    def untrained_records(self) -> list[tuple[Arm, RunRecord]]:
        """The model before training, once for each seed; none where it is no arm."""
        if self.recipe.compare.untrained is None:
            return []
        found = [self._untrained(seed) for seed in self.recipe.compare.seeds]
        return [(arm, self._record(arm)) for arm in found]

    @property
    def against(self) -> str:
        return self.recipe.compare.against or next(iter(self.recipe.compare.arms))

    def outcomes(self) -> list[Outcome]:
        found = [self._outcome(arm) for arm in all_arms(self.recipe)]
        if self.recipe.compare.untrained is not None:
            found = [*(self._untouched(seed) for seed in self.recipe.compare.seeds), *found]
        order = {name: number for number, name in enumerate(self.recipe.compare.names)}
        return sorted(found, key=lambda one: (order[one.arm], one.seed))

    def rows(self) -> list[ResultRow]:
        each = self.recipe.compare
        return result_rows(self.outcomes(), each.names, self.against, same_pairs=each.playground is None)

    def write(self) -> None:
        self.write_tables()
        rows = self.rows()
        if any(row.values(self.metric) for row in rows):
            storage.write_bytes(join(self.folder, PICTURE), picture(rows, self.metric, self.against))

    def write_tables(self) -> None:
        """Write the outcomes, their table and the summary, at any time; what was written before is replaced whole."""
        storage.write_bytes(join(self.folder, CSV), write_results(self.outcomes()).encode())
        storage.write_bytes(join(self.folder, TABLE), f"{self._text()}\n".encode())
        self.record.write_summary({"seconds": self.seconds})

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
        outcomes = [one for row in rows for one in row.outcomes if row.arm != self.recipe.compare.untrained]
        ended = sum(one.state != "missing" for one in outcomes)
        head = f"{self.recipe.output.name}: {ended} of {len(outcomes)} runs ended, {duration_text(self.seconds)} in all"
        notes = [notes_text(rows, self.metric), *filter(None, [windows_left_out(self.recipe)])]
        return "\n".join([head, "", table_text(rows, self.metric, self.against), "", *notes])

    def _untrained(self, seed: int) -> Arm:
        return Arm(self.recipe.compare.untrained or "", seed, of_seed(self.recipe, seed))

    def _record(self, arm: Arm) -> RunRecord:
        return RunRecord(join(self.folder, arm.folder))

    def _outcome(self, arm: Arm) -> Outcome:
        record, folder = self._record(arm), join(self.folder, arm.folder)
        if reason := record.failure():
            return Outcome(arm.name, arm.seed, failure=reason)
        summary = record.summary()
        if summary is None:
            return Outcome(arm.name, arm.seed)
        metrics = {**_finite(summary["eval_after"]), **summary.get("judged", {})}
        pairs, prompts = (HeldOutPairs.read(join(folder, name)) for name in (AFTER, JUDGED_FILE))
        return Outcome(arm.name, arm.seed, metrics, summary["seconds"], pairs=pairs, prompts=prompts)

    def _untouched(self, seed: int) -> Outcome:
        """Judged in its playground; elsewhere as a run found it before its first step."""
        metrics: dict[str, float] = {}
        pairs = None
        arms = [arm for arm in all_arms(self.recipe) if arm.seed == seed]
        for arm in sorted(arms, key=lambda arm: arm.name != self.against):
            if summary := self._record(arm).summary():
                metrics |= _finite(summary["eval_before"])
                pairs = HeldOutPairs.read(join(self.folder, arm.folder, BEFORE))
                break
        record = self._record(self._untrained(seed))
        prompts = HeldOutPairs.read(join(record.folder, JUDGED_FILE))
        metrics |= (record.summary() or {}).get("judged", {})
        return Outcome(self._untrained(seed).name, seed, metrics, pairs=pairs, prompts=prompts)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
