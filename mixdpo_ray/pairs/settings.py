"""The data section of a recipe: where pairs come from, what is refused and what is cut."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, field_validator, model_validator

from mixdpo_ray.pairs.curating import CurateField
from mixdpo_ray.pairs.formats import FORMATS
from mixdpo_ray.pairs.pairing import PairSettings
from mixdpo_ray.pairs.selection import Rules
from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import did_you_mean

TRAIN_SOURCE = "data.source"
HELD_OUT_SOURCE = "data.heldout.source"
HELD_OUT_SETS = "data.heldout.sets"
MIX = "data.source.mix"
SFT_SOURCE = "data.sft.source"
MAX_ROW_BYTES = 1 << 20
MarginScale = Literal["auto", "none", "range", "quantile"] | dict[str, PositiveFloat]


class SourceSettings(Settings):
    path: str | tuple[str, ...] = Field(description="File, glob, folder or URI, several of them, or a data set's name")
    revision: str | None = Field(None, description="Of a Hugging Face data set: the commit, tag or branch; pin it")
    config: str | None = Field(None, description="Of a Hugging Face data set: the name of its configuration")
    data_dir: str | None = Field(None, description="Of a Hugging Face data set: the folder inside it")
    split: str | None = Field(None, description="Of a Hugging Face data set: the split, train where none is given")
    format: str = Field(
        "auto",
        description="auto: by the columns; or plain (prompt, chosen, rejected, and margin or score_chosen and "
        "score_rejected), or the name of a data set's format, see jobs/README.md",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Our column's name -> the source's, as {chosen: best, score_chosen: best_score}",
    )
    max_row_bytes: int = Field(MAX_ROW_BYTES, ge=1, description="A row whose text takes more bytes is refused")
    max_quarantined_fraction: float = Field(0.2, ge=0, le=1, description="More refused rows than this stop the job")

    @field_validator("format")
    @classmethod
    def _known_format(cls, name: str) -> str:
        known = ("auto", *FORMATS)
        if name not in known:
            raise ValueError(f"unknown format; {did_you_mean(name, known)}")
        return name

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.path:
            raise ValueError("path is missing: name files or a data set")
        return self

    @property
    def name(self) -> str:
        return self.path if isinstance(self.path, str) else ", ".join(self.path)


class MixedSource(SourceSettings):
    weight: float = Field(
        1.0, gt=0, le=1, description="Share of its pairs that is kept, chosen by a hash of each, to the nearest pair"
    )


class TrainingSource(SourceSettings):
    path: str | tuple[str, ...] = Field(
        (), description="File, glob, folder or URI, several of them, or a data set's name"
    )
    mix: dict[str, MixedSource] = Field(
        {}, description="Several sources in place of path: {chat: {path: ..., weight: 0.5}, code: {path: ...}}"
    )

    @classmethod
    def of(cls, source: SourceSettings) -> TrainingSource:
        """A source by itself, without what it is among others."""
        return cls.model_validate(source.model_dump(exclude={"weight"}))

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.mix:
            if not self.path:
                raise ValueError("path is missing: name files or a data set, or several sources under mix")
            return self
        named = [name for name in type(self).model_fields if name != "mix" and not self._is_default(name)]
        if named:
            raise ValueError(f"{named[0]} belongs to one source, and mix names several: write mix.NAME.{named[0]}")
        if odd := next((name for name in self.mix if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name)), None):
            raise ValueError(f"mix names a source {odd!r}: use letters, digits, '_' and '-'")
        return self

    def _is_default(self, name: str) -> bool:
        return bool(getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True))

    @property
    def name(self) -> str:
        return ", ".join(one.name for one in self.mix.values()) if self.mix else super().name

    def identity(self) -> dict[str, Any]:
        """What tells other pairs, in a mix by source; limits of refused rows do not, and no mix is left out."""
        content = self.model_dump(mode="json")
        for source in content["mix"].values():
            del source["max_quarantined_fraction"]
        if not self.mix:
            del content["mix"]
        return content


class HeldoutSettings(Settings):
    source: SourceSettings | None = Field(None, description="Evaluate on these pairs; none takes them from data.source")
    fraction: float = Field(0.05, ge=0, lt=1, description="Share of data.source's pairs that is held out")
    max_pairs: int = Field(1000, ge=0, description="At most this many pairs are held out")
    seed: int = Field(42, ge=0, description="Which prompts are held out, by a hash of the prompt")
    sets: dict[str, SourceSettings] = Field(
        {}, description="Further held-out sets, name -> source; each has metrics of its own, eval_NAME_loss and so on"
    )

    @field_validator("sets")
    @classmethod
    def _names_are_words(cls, sets: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
        for name in sets:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
                raise ValueError(f"{name!r} is part of metrics' names: use letters, digits, '_' and '-'")
        return sets

    @property
    def holds_out(self) -> bool:
        """Whether any pair is asked to be held out, beside those of sets."""
        return self.source is not None or self.fraction * self.max_pairs > 0

    def identity(self) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        for source in filter(None, (content["source"], *content["sets"].values())):
            _leave_out_limits(source)
        if not self.sets:
            del content["sets"]
        return content


class SftSettings(Settings):
    """Rows of a prompt and one good answer, trained by SFT among hard pairs; of a pair the chosen answer is taken."""

    source: SourceSettings = Field(description="Rows with prompt and answer, with messages, or pairs")
    fraction: float = Field(1.0, gt=0, le=1, description="Share of its rows, chosen by a hash of their content")
    max_rows: int | None = Field(None, ge=1, description="At most this many of them")
    seed: int = Field(42, ge=0, description="Which rows are taken, and in which order they are trained, by the hash")

    def identity(self) -> dict[str, Any]:
        content = self.model_dump(mode="json")
        _leave_out_limits(content["source"])
        return content


def _leave_out_limits(source: dict[str, Any]) -> None:
    """Leave out of a source's settings what makes no other pairs, and what later versions brought, where it is off."""
    del source["max_quarantined_fraction"]
    if source["max_row_bytes"] == MAX_ROW_BYTES:
        del source["max_row_bytes"]


class DataSettings(Settings):
    """Every refusal has a reason (pairs.checking.REASONS) and is counted; nothing changes unless a policy says so."""

    source: TrainingSource = Field(description="The pairs to train on")
    heldout: HeldoutSettings = Field(HeldoutSettings(), description="The pairs to evaluate on")
    negative_margin: Literal["error", "swap", "drop", "hard"] = Field(
        "error", description="Chosen rated below rejected: stop, swap the answers, refuse the row, or give it margin 0"
    )
    missing_score: Literal["drop", "error", "hard"] = Field(
        "drop", description="No rating, or NaN: refuse the row, stop, or give it margin 0"
    )
    margin_scale: MarginScale = Field(
        "auto",
        description="none: as rated; range: divided by the width of the row's rating scale; quantile: rank within its "
        "source; a table of source -> divisor; auto: range where a format mixes rating scales, otherwise none",
    )
    max_prompt_length: int = Field(512, ge=1, description="Tokens of the prompt")
    max_length: int = Field(1024, ge=2, description="Tokens of the prompt and one answer")
    truncation: Literal["drop", "truncate", "raise"] = Field(
        "drop", description="Too long: refuse the row, cut prompts on the left and answers on the right, or stop"
    )
    curate: CurateField = Field(
        None, description="Find wrong ratings and orders: {method: ds2, perpcorrect or agreement, and its settings}"
    )
    select: Rules = Field((), description="Train only the pairs that these rules keep, one after another")
    pair: PairSettings = Field(PairSettings(), description="How answers become pairs, and what is made of pairs")
    sft: SftSettings | None = Field(None, description="Rows with one good answer, trained by SFT among the hard pairs")

    @property
    def max_row_bytes(self) -> int:
        return self.source.max_row_bytes

    def identity(self) -> dict[str, Any]:
        """What tells other pairs. What came later is left out where it is off, since earlier versions had nothing else,
        and what has moved stands where it stood.
        """
        content = self.model_dump(mode="json") | {"source": self.source.identity()}
        for moved in ("max_row_bytes", "max_quarantined_fraction"):
            content[moved] = content["source"].pop(moved)
        content["heldout"] = self.heldout.identity()
        if self.curate is None:
            del content["curate"]
        if self.sft is None:
            del content["sft"]
        else:
            content["sft"] = self.sft.identity()
        return content

    @property
    def by_source(self) -> dict[str, DataSettings]:
        """What each source is read by, under the setting that names it: the pairs to train on, and those to evaluate on
        where they have sources of their own. Those are judged by as they are.
        """
        held_out = {} if self.heldout.source is None else {HELD_OUT_SOURCE: self.heldout.source}
        held_out |= {f"{HELD_OUT_SETS}.{name}": source for name, source in self.heldout.sets.items()}
        as_they_are = {"pair": PairSettings()}
        apart = {name: self._of(one).model_copy(update=as_they_are) for name, one in held_out.items()}
        if self.sft is not None:
            unrated = {"missing_score": "hard", "margin_scale": "none"}
            apart[SFT_SOURCE] = self._of(self.sft.source).model_copy(update=as_they_are | unrated)
        return {**self.trained, **apart}

    def _of(self, source: SourceSettings) -> Self:
        """The same policies for another source."""
        return self.model_copy(update={"source": TrainingSource.of(source)})

    @property
    def trained(self) -> dict[str, DataSettings]:
        """Those of by_source that pairs are trained of: one, or each source of the mix."""
        mixed = {f"{MIX}.{name}": self._of(one) for name, one in self.source.mix.items()}
        return mixed or {TRAIN_SOURCE: self}

    @property
    def holds_out(self) -> bool:
        """Whether any pair is asked to be held out."""
        return self.heldout.holds_out or bool(self.heldout.sets)

    @field_validator("source", mode="before")
    @classmethod
    def _source_of_any_kind(cls, source: object) -> object:
        return TrainingSource.of(source) if type(source) is SourceSettings else source

    @model_validator(mode="after")
    def _room_for_answers(self) -> Self:
        if self.max_prompt_length > self.max_length:
            raise ValueError(
                f"max_prompt_length {self.max_prompt_length} exceeds max_length {self.max_length}: no answer would fit"
            )
        return self


def mixed_name(setting: str) -> str | None:
    """The name of a source of the mix, by the setting that names it; none of a source by itself."""
    return setting.removeprefix(f"{MIX}.") if setting.startswith(f"{MIX}.") else None
