"""What an engine promises: to answer what is asked, each batch on its own. sample.py has the table of them by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import AskedPrompt
from mixdpo_ray.tables.answer_table import ANSWERS

DRAWN = pa.schema([ANSWERS.field(name) for name in ("prompt_id", "draw", "answer", "tokens", "token_ids", "finish")])


@dataclass(frozen=True)
class AskedAnswer:
    """The n-th answer to a prompt."""

    prompt: AskedPrompt
    draw: int

    @property
    def prompt_id(self) -> str:
        return self.prompt.prompt_id


class Engine(Protocol):
    @property
    def model(self) -> str:
        """The name of whose answers they are, for people."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides an answer, besides its prompt, its number and what every engine is asked alike."""

    @property
    def recipe(self) -> Recipe:
        """The recipe with the model that is loaded: the cluster is looked over for it."""

    @property
    def cpus(self) -> int:
        """How many a Ray that is started here should have."""

    @property
    def unanswered(self) -> Mapping[str, int]:
        """Why it could not answer what it was last asked, and how often."""

    def refused(self, prompts: Sequence[AskedPrompt]) -> list[Refusal]:
        """Prompts that it cannot answer, found before Ray is there."""

    def answers(self, asked: Sequence[AskedAnswer]) -> Iterator[pa.Table]:
        """Rows of DRAWN in any order, each batch as soon as it is done. Ray is connected."""
