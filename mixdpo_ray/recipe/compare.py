"""The compare section of a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.playground.settings import PlaygroundSettings
from mixdpo_ray.recipe.measure import Measure, read_metric
from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import did_you_mean

QUALITY = "quality"  # mean true quality of sampled answers, where the pairs come from a playground
OF_A_PLAYGROUND = (QUALITY, "win_rate")
Seed = Annotated[int, Field(ge=0)]


def refuse_odd_names(arms: Iterable[str]) -> None:
    if odd := [name for name in arms if not re.fullmatch(r"[^\s/.](?:[^/\n|]*\S)?", name)]:
        raise ValueError(f"arm {odd[0]!r}: a name begins with a letter and holds no slash, bar or line break")


class CompareSettings(Settings):
    arms: dict[str, dict[str, Any]] = Field(
        {}, description="Name of an arm -> its settings as dotted.key: value; {} is the recipe itself"
    )
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2),
        min_length=1,
        description="Each trains every arm once: another playground, or train.seed, curriculum.seed",
    )
    against: str | None = Field(None, description="The arm that differences are taken from; the first one by default")
    metric: str | None = Field(
        None,
        description="What is compared: of held-out pairs, or judge/win_rate or judge/quality of what models write; by "
        "default held-out accuracy, or true quality where there is a playground",
    )
    untrained: str | None = Field(None, description="Name of an arm that is the model before any training")
    playground: PlaygroundSettings | None = Field(
        None, description="Make a playground of every seed; model.path and data.source.path begin with <playground>"
    )
    answers_each: int = Field(4, ge=1, description="Answers to each judged prompt of a playground; more measure finer")
    at_once: int | None = Field(None, ge=1, description="Arms trained at a time; as many as there are cores for")
    keep_models: bool = Field(False, description="Keep the model of every arm and seed")

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, written: str | None) -> str | None:
        if written is None or written in OF_A_PLAYGROUND:
            return written
        return _written(read_metric(written, OF_A_PLAYGROUND))

    @model_validator(mode="after")
    def _names_are_there(self) -> Self:
        if self.untrained is not None and self.untrained in self.arms:
            raise ValueError(f"untrained {self.untrained!r} is the name of an arm that is trained: choose another")
        names = self.names
        if self.against is not None and self.against not in names:
            raise ValueError(f"against {self.against!r} is no arm; {did_you_mean(self.against, names)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} name one twice")
        refuse_odd_names(names)
        if self.metric in OF_A_PLAYGROUND and self.playground is None:
            raise ValueError(f"metric {self.metric} is known in a playground alone: give compare.playground")
        if self.playground is not None and self.playground.seed != PlaygroundSettings().seed:
            raise ValueError("playground.seed would be overwritten: compare.seeds says which playgrounds there are")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all arms, the untrained one first."""
        return (*([self.untrained] if self.untrained is not None else []), *self.arms)

    @property
    def measure(self) -> Measure:
        written = self.metric or (QUALITY if self.playground else "accuracy")
        return Measure(written, "max") if written in OF_A_PLAYGROUND else read_metric(written)


def _written(metric: Measure) -> str:
    return f"{metric.direction} {metric.name}"
