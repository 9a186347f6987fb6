"""How wrong ratings and wrong orders are looked for: the section data.curate.

To add a way: a class with its settings, its key in CURATIONS, and what it does in preparation/curate.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, field_validator, model_validator

from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import did_you_mean

FOLDED = (4.5, 5.5, 6.5, 7.5, 8.5)  # DS2's classes of ratings 1 to 10: up to 4, 5, 6, 7, 8, from 9


class Curation(Settings):
    """A way to curate. The base has no settings: each way has its own."""

    trains: ClassVar[bool] = False  # whether it trains models, for which the cluster must have room


class EmbeddingSettings(Settings):
    model: str | None = Field(
        None, description="An encoder, by its Hugging Face name or folder; by default the policy before training"
    )
    revision: str | None = Field(None, description="Of the encoder: commit or tag on the Hub")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="Number format of the encoder's weights")
    kind: Literal["states", "surprise"] = Field(
        "states",
        description="states: the model's last hidden states; surprise: how likely the policy's start finds the "
        "answer's tokens, which says more where it knows right answers from wrong ones",
    )
    pooling: Literal["mean", "cls", "last"] = Field("mean", description="Which states: all in the mean, first or last")
    text: Literal["prompt_and_answer", "answer"] = Field("prompt_and_answer", description="What the model reads")
    max_length: int = Field(512, ge=2, description="Tokens that an encoder reads; of longer texts the end is cut")

    @model_validator(mode="after")
    def _surprise_is_the_policys(self) -> Self:
        if self.kind == "surprise" and self.model is not None:
            raise ValueError("kind surprise reads the policy's own log-probs: leave model out")
        if self.kind == "surprise" and self.text == "answer":
            raise ValueError("kind surprise is that of an answer to its prompt: leave text out")
        return self


class DS2(Curation):
    """Ratings that neighbours in embedding space speak against."""

    edges: tuple[float, ...] = Field(
        FOLDED, min_length=1, description="Ratings are folded into classes at these; by default DS2's of 1 to 10"
    )
    embedding: EmbeddingSettings = Field(EmbeddingSettings(), description="The space in which answers are neighbours")
    wrong: Literal["replace", "drop", "keep"] = Field(
        "replace", description="Wrong ratings: take the one suggested, drop the pair, or only report them"
    )
    confidence: float = Field(
        0.5, ge=0, le=1, description="replace: only where the suggestion is this sure; other wrong ones stay"
    )
    voters: int = Field(10, ge=2, description="Neighbours that vote on a rating")
    epochs: int = Field(51, ge=1, description="Votes, each among a random half of the answers")
    rounds: int = Field(50, ge=1, description="Fits of the transition matrix; one where 50,000 answers hold all")
    seed: int = Field(42, ge=0, description="Of the samples that are drawn")

    @field_validator("edges")
    @classmethod
    def _ascending(cls, edges: tuple[float, ...]) -> tuple[float, ...]:
        if list(edges) != sorted(set(edges)):
            raise ValueError("give ascending numbers, such as [4.5, 6.5, 8.5]")
        return edges


class PerpCorrect(Curation):
    """Pairs that a model trained on trusted pairs finds the wrong way round."""

    trains: ClassVar[bool] = True

    trusted: str | tuple[str, ...] | None = Field(
        None,
        description="A path of pairs whose order is right, in the format of data.source; by default those of the "
        "largest margins",
    )
    trusted_fraction: float = Field(0.02, gt=0, lt=1, description="Share of the pairs that is trusted by its margins")
    rounds: int = Field(6, ge=0, description="Each trusts more pairs; that of the best separation decides")
    added_fraction: float = Field(0.02, gt=0, lt=0.5, description="Share of the pairs that a round adds")
    wrong: Literal["flip", "drop", "keep"] = Field(
        "flip", description="Pairs the wrong way round: exchange their answers, drop them, or only report them"
    )
    beta: float = Field(0.1, gt=0, description="Of the DPO loss of the short trainings")
    learning_rate: float = Field(1e-3, gt=0, description="Of the short trainings")
    num_train_epochs: int = Field(1, ge=1, description="Of the short trainings")
    global_batch_size: int | None = Field(None, ge=1, description="Of the short trainings; train's by default")
    lora_rank: int | None = Field(32, ge=1, description="Of adapters; null trains all weights")
    seed: int = Field(42, ge=0, description="Of the short trainings")


class Agreement(Curation):
    """Pairs on whose order several raters disagree."""

    wrong: Literal["drop", "flip", "keep"] = Field(
        "drop", description="Pairs that raters disagree on: drop them, take the order of most, or only report them"
    )


CURATIONS: dict[str, type[Curation]] = {"ds2": DS2, "perpcorrect": PerpCorrect, "agreement": Agreement}


def curation_name(curation: Curation) -> str:
    return next(name for name, kind in CURATIONS.items() if type(curation) is kind)


def _pick(value: object) -> object:
    if isinstance(value, Curation) or value is None:
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"write {{method: ..., and its settings}}; method is one of {', '.join(CURATIONS)}")
    settings = dict(value)
    name = settings.pop("method", None)
    if name not in CURATIONS:
        raise ValueError(f"method {name!r} is unknown; {did_you_mean(str(name), CURATIONS)}")
    return CURATIONS[name].model_validate(settings)


def _to_dict(curation: Curation | None) -> dict[str, Any] | None:
    return None if curation is None else {"method": curation_name(curation), **curation.model_dump(mode="json")}


CurateField = Annotated[Curation | None, BeforeValidator(_pick), PlainSerializer(_to_dict)]
