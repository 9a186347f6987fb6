"""What a study leaves for people: trials.csv, best.yaml, and a page that shows why it won."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
import yaml

from mixdpo_ray import storage
from mixdpo_ray.recipe.dotted import set_dotted
from mixdpo_ray.recipe.measure import read_metrics
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.page import write_report
from mixdpo_ray.search.report.study_of_trials import folded_study
from mixdpo_ray.search.report.winner import doubt_across_objectives, doubt_of_winner, rivals_of_winner
from mixdpo_ray.search.space import Space, with_settings
from mixdpo_ray.search.trials import TrialRow, best, front, rows, write_trials
from mixdpo_ray.storage import join
from mixdpo_ray.training.metric_names import metric_in_words
from mixdpo_ray.wording import python_command

NUM_SAMPLES = "tune.num_samples="
ENDS = ("COMPLETE", "PRUNED", "FAIL", "INTERRUPTED")
CSV, BEST, REPORT = "trials.csv", "best.yaml", "report.html"
NO_PLOTLY = (
    "report.html will have no figures: pip install 'mixdpo_ray[report]'; the same command, repeated, draws them and "
    "runs no trial again"
)


@dataclass(frozen=True)
class StudyOutput:
    recipe: Recipe  # the person's own, with the workers that a trial gets
    folder: str  # as the person wrote it
    space: Space
    study: optuna.Study
    steps: Mapping[int, int]  # budget -> steps
    arithmetic: str
    command: Sequence[str]  # which, repeated, goes on

    def write(self, counters: Mapping[str, int]) -> None:
        """Write the trials, the best recipes and the report, at any time; what was written before is replaced whole."""
        trials, metrics = rows(self.study), read_metrics(self.recipe.tune.metric)
        text = write_trials(trials, metrics, self.space.settings, self.recipe.tune.early_stopping.budgets)
        storage.write_bytes(join(self.folder, CSV), text.encode())
        winner = best(trials, metrics)
        if winner is not None:
            self._write_recipe(BEST, winner, f"{self.recipe.output.name}-best")
        if len(metrics) > 1:
            for row in front(trials, metrics):
                name = f"trial-{row.number:04d}"
                self._write_recipe(f"pareto/{name}.yaml", row, f"{self.recipe.output.name}-{name}")
        write_report(self.study, self._facts(winner, counters), join(self.folder, REPORT))

    def describe(self) -> str:
        """The closing lines. The last one is the page's, where it says that trials cannot be told apart."""
        trials, metrics = rows(self.study), read_metrics(self.recipe.tune.metric)
        counts = {state: sum(row.state == state for row in trials) for state in ENDS}
        ended = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
        lines = [f"{self.folder}: {len(trials)} trials ({ended})"]
        winner = best(trials, metrics)
        facts, study = self._facts(winner, {}), folded_study(self.study)
        if winner is None:
            guard = f" and kept {self.recipe.tune.guard}" if self.recipe.tune.guard else ""
            lines.append(f"  no trial was trained to the end{guard}: {CSV} says why")
        else:
            own = trials[0]
            doubts = [doubt_of_winner(study, facts, number) for number in range(len(metrics))]
            scores = ", ".join(
                f"{metric_in_words(metric.name)} {value:.4f}{f' ({doubt})' if doubt else ''}"
                for metric, value, doubt in zip(metrics, winner.values, doubts, strict=True)
            )
            before = f"; the recipe's own settings: {own.values[0]:.4f}" if own.values and own is not winner else ""
            lines.append(f"  best     trial {winner.number}: {scores}{before}")
            lines += [f"           {setting} = {value}" for setting, value in winner.settings.items()]
            lines.append(f"  train    {self._train_command}")
        lines.append(f"  trials   {self.folder}/{CSV}")
        lines.append(f"  picture  {self.folder}/{REPORT}")
        told = [rivals_of_winner(study, facts), doubt_across_objectives(study, facts)]
        lines += [f"  {sentence}" for sentence in told if sentence]
        return "\n".join(lines)

    @property
    def _train_command(self) -> str:
        return f"{python_command()} jobs/train.py {self.folder}/{BEST}"

    @property
    def _tune_command(self) -> str:
        """The study's command; once all its trials have ended, with as many again."""
        given, ended = [*self.command], sum(row.state != "INTERRUPTED" for row in rows(self.study))
        if ended >= self.recipe.tune.num_samples and self.recipe.tune.sampler != "grid":
            given = [word for word in given if not word.startswith(NUM_SAMPLES)] + [f"{NUM_SAMPLES}{2 * ended}"]
        return f"{python_command()} {shlex.join(given)}"

    def _write_recipe(self, name: str, row: TrialRow, run: str) -> None:
        trained = with_settings(self.recipe, row.settings)
        tree: dict[str, Any] = trained.model_dump(mode="json", exclude_defaults=True)
        tree.pop("tune", None)
        for setting, value in row.settings.items():  # also where it is the default: it was searched
            set_dotted(tree, setting, value)
        set_dotted(tree, "output.name", run)
        tree["output"].pop("fresh", None)
        head = [f"# Trial {row.number} of {self.folder}: {', '.join(f'{value:.6f}' for value in row.values)}"]
        text = "\n".join([*head, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)])
        storage.write_bytes(join(self.folder, name), text.encode())

    def _facts(self, winner: TrialRow | None, counters: Mapping[str, int]) -> StudyFacts:
        return StudyFacts(
            name=self.recipe.output.name,
            folder=self.folder,
            metrics=tuple((metric.name, metric.direction) for metric in read_metrics(self.recipe.tune.metric)),
            guard=self.recipe.tune.guard,
            best=winner.number if winner else None,
            train_command=self._train_command,
            tune_command=self._tune_command,
            rungs=tuple(self.steps.items()),
            resources=self.arithmetic,
            counters=counters,
        )


def can_draw() -> bool:
    return importlib.util.find_spec("plotly") is not None
