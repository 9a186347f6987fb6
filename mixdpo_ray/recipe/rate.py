"""The rate section of a recipe: which answers or pairs are rated, and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.raters import RATERS
from mixdpo_ray.raters.rater import Rater
from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import did_you_mean


def _pick_rater(value: object) -> object:
    if isinstance(value, Rater):
        return value
    if not isinstance(value, Mapping) or "kind" not in value:
        raise ValueError(f"write {{kind: ..., and its settings}}; kind is one of {', '.join(RATERS)}")
    kind = str(value["kind"])
    if kind not in RATERS:
        raise ValueError(f"unknown kind {kind!r}; {did_you_mean(kind, RATERS)}")
    return RATERS[kind].model_validate({name: given for name, given in value.items() if name != "kind"})


def _rater_to_dict(rater: Rater) -> dict[str, Any]:
    return {"kind": rater_kind(rater), **rater.model_dump(mode="json")}


def rater_kind(rater: Rater) -> str:
    return next(name for name, kind in RATERS.items() if type(rater) is kind)


RaterField = Annotated[Rater, BeforeValidator(_pick_rater), PlainSerializer(_rater_to_dict)]


class RateSettings(Settings):
    source: SourceSettings | None = Field(
        None, description="Rows of prompt and answer, or answers; by default what jobs/sample.py drew for this recipe"
    )
    pairs: bool = Field(False, description="Rate the pairs of data.source instead, which may have no ratings")
    raters: dict[str, RaterField] = Field(
        {}, description=f"Name -> {{kind: ..., its settings}}; kinds: {', '.join(RATERS)}"
    )
    combine: Literal["mean", "median", "agreement"] = Field(
        "mean", description="Of several raters; agreement: the mean, where all put the best answer above the worst"
    )
    scale: Literal["pooled", "zscore", "rank"] = Field(
        "pooled",
        description="What several raters are compared by, within each prompt: the difference to its mean in the "
        "rater's spread over all prompts, or over this one, or the rank from 0 to 1",
    )
    max_missing: float = Field(0.05, ge=0, lt=1, description="Share of a rater's ratings that may be missing")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.pairs and self.source is not None:
            raise ValueError("pairs rates those of data.source, and source names answers: leave one out")
        if self.combine == "agreement" and len(self.raters) == 1:
            raise ValueError("combine agreement needs two raters at least: give another one, or combine mean")
        return self
