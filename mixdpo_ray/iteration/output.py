"""What an iteration leaves for people: rounds.json, table.md, rounds.png and report.html, written after every round."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from mixdpo_ray import storage
from mixdpo_ray.cluster.run_record import RunRecord, differences
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.evaluation.judged_model import own_benchmark
from mixdpo_ray.iteration.page import rounds_page
from mixdpo_ray.iteration.picture import rounds_picture
from mixdpo_ray.iteration.results import RoundResult, best_round
from mixdpo_ray.iteration.round_recipes import model_before, round_folder
from mixdpo_ray.iteration.table import outcome_text, rounds_table
from mixdpo_ray.recipe.rate import rater_kind
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.storage import join

ROUND, ROUNDS, ROUNDS_TABLE, ROUNDS_PICTURE, ROUNDS_PAGE = (
    "round.json",
    "rounds.json",
    "table.md",
    "rounds.png",
    "report.html",
)

DRAWN_BY = {"prompts", "answers_each", "decoding", "system_prompt", "chat_template_kwargs", "engine"}


class IterateOutput:
    def __init__(self, recipe: Recipe, folder: str):
        """`folder`: as the person wrote it."""
        self.recipe, self.folder, self.record = recipe, folder, RunRecord(folder)
        self.rounds = self._read()

    @property
    def ended(self) -> bool:
        """Whether no round follows: all are done, or the last one was no better than the one before it."""
        return len(self.rounds) >= self.recipe.answers.iterate.rounds or any(not one.gains for one in self.rounds)

    @property
    def best_model(self) -> str:
        return model_before(self.recipe, best_round(self.rounds) + 1)

    def refuse_other_settings(self) -> None:
        """Rounds of another recipe are not continued; more of them are asked for by a larger number."""
        before = self.record.recorded()
        changes = [] if before is None else differences(before.identity, _identity(self.recipe))
        if changes and self.rounds:
            raise RunConflictError(
                f"{self.folder} belongs to another iteration ({'; '.join(changes)}): choose another output.name, or "
                "output.fresh=true to delete it and start over"
            )

    def claim(self) -> None:
        self.record.write_recipe(self.recipe, _identity(self.recipe))

    def add(self, done: RoundResult) -> None:
        storage.write_bytes(self._file_of(done.number), done.to_json())
        self.rounds.append(done)
        self.write()

    def write(self) -> None:
        best = best_round(self.rounds)
        content = {"name": self.recipe.output.name, "best_round": best, "best_model": self.best_model}
        rounds = {"ended": self.ended, "rounds": [asdict(one) for one in self.rounds]}
        storage.write_bytes(join(self.folder, ROUNDS), f"{json.dumps({**content, **rounds}, indent=1)}\n".encode())
        storage.write_bytes(join(self.folder, ROUNDS_TABLE), f"{self._text()}\n".encode())
        storage.write_bytes(join(self.folder, ROUNDS_PICTURE), rounds_picture(self.rounds, "png"))
        page = rounds_page(self.recipe, self.rounds, self.folder, self.best_model)
        storage.write_bytes(join(self.folder, ROUNDS_PAGE), page)

    def describe(self) -> str:
        """The closing lines."""
        files = {"best model": self.best_model, "table": join(self.folder, ROUNDS_TABLE)}
        files |= {"picture": join(self.folder, ROUNDS_PICTURE), "page": join(self.folder, ROUNDS_PAGE)}
        return "\n".join([self._text(), "", *(f"  {name:<10}  {path}" for name, path in files.items())])

    def _text(self) -> str:
        return "\n".join([outcome_text(self.recipe, self.rounds), "", *rounds_table(self.rounds)])

    def _read(self) -> list[RoundResult]:
        """Those that are done, one after another."""
        found: list[RoundResult] = []
        while storage.exists(path := self._file_of(len(found) + 1)):
            found.append(RoundResult.from_json(storage.read_bytes(path), path))
        return found

    def _file_of(self, number: int) -> str:
        return join(round_folder(self.recipe, number), ROUND)


def _identity(recipe: Recipe) -> dict[str, Any]:
    """What a round is made of: how many there are, where the work is done and what it may cost are not.

    What is as by default is left out, since an earlier version may not have had the setting.
    """
    answers, judge = recipe.answers, recipe.answers.judge
    served = judge.http.model if judge and judge.http else None
    raters = {
        name: {"kind": rater_kind(rater), **rater.model_dump(mode="json", exclude_defaults=True)}
        for name, rater in answers.rate.raters.items()
    }
    return {
        **recipe.training_identity(),
        "sample": answers.sample.model_dump(mode="json", exclude_defaults=True, include=DRAWN_BY),
        "rate": {"raters": raters} | answers.rate.model_dump(exclude_defaults=True, exclude={"raters"}),
        "judge": {
            "engine": judge.engine if judge else None,
            "model": judge.model or served if judge else None,
            "revision": judge.revision if judge else None,
            "criterion": own_benchmark(recipe).criterion,
        },
        "iterate": answers.iterate.model_dump(mode="json", exclude_defaults=True, exclude={"rounds"}),
    }
