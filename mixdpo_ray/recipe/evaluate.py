"""The evaluate section of a recipe: which models' answers to which prompts are judged."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from mixdpo_ray.benchmarks import BENCHMARKS
from mixdpo_ray.benchmarks.benchmark import Benchmark
from mixdpo_ray.recipe.compare import refuse_odd_names
from mixdpo_ray.recipe.named import of_its_name, with_names
from mixdpo_ray.recipe.tasks import TasksSettings
from mixdpo_ray.settings import Settings
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.wording import did_you_mean

UNTRAINED, TRAINED = "before", "trained"  # the arms where none is named


BenchmarkField = Annotated[Benchmark, BeforeValidator(of_its_name(BENCHMARKS)), SerializeAsAny()]
BenchmarksField = Annotated[
    dict[str, BenchmarkField], BeforeValidator(with_names(BENCHMARKS, "benchmark", "{own: {prompts: FILE}}"))
]


class EvaluateSettings(Settings):
    benchmarks: BenchmarksField = Field(
        {"own": {}},
        validate_default=True,
        min_length=1,
        description=f"Benchmark -> its settings: {', '.join(BENCHMARKS)}; files are theirs, see benchmarks/README.md",
    )
    arms: dict[str, str] = Field(
        {},
        description="Name -> whose answers: a run, its checkpoints/step-K, a model's folder or Hub name, or a file of "
        f"answers ({{benchmark}} in its name); by default {UNTRAINED}: model.path, {TRAINED}: outputs/runs/NAME",
    )
    comparison: str | None = Field(
        None, description="outputs/runs/NAME of jobs/compare.py with compare.keep_models: its arms, instead of arms"
    )
    against: str | None = Field(
        None,
        description="The arm that differences are taken from, and whose answers are those of own to compare with; by "
        "default the first",
    )
    most: int | None = Field(
        None, ge=1, description="At most so many prompts of each benchmark, evenly spread; all where none is given"
    )
    decoding: dict[str, DecodingSettings] = Field(
        {},
        description="Benchmark -> how answers are drawn, as in answers.sample.decoding; by default the benchmark's own "
        "way, and that section for own",
    )
    tasks: TasksSettings | None = Field(
        None, description="Downstream tasks by lm-eval; {} takes those of the paper, with its numbers of shots"
    )

    @model_validator(mode="after")
    def _names_are_there(self) -> Self:
        refuse_odd_names(self.arms)
        if self.arms and self.comparison is not None:
            raise ValueError("arms and comparison both say whose answers are judged: keep one")
        names = () if self.comparison is not None else self.arms or (UNTRAINED, TRAINED)
        if self.against is not None and names and self.against not in names:
            raise ValueError(f"against {self.against!r} is no arm; {did_you_mean(self.against, names)}")
        if odd := [name for name in self.decoding if name not in self.benchmarks]:
            raise ValueError(f"decoding.{odd[0]}: no such benchmark; {did_you_mean(odd[0], self.benchmarks)}")
        return self
