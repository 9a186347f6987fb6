"""Pairs of a playground with planted noise: ratings of another class, orders turned, or raters that err."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixdpo_ray.playground.annotator import RatedPair
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.playground.prompts import quality

EDGES = (4.75, 7.5)  # of true qualities: three classes, of which none is rare
CENTRES = (3.25, 6.0, 9.0)
RATERS = 3


@dataclass(frozen=True)
class Planted:
    """A playground's pairs with noise of one kind."""

    playground: PlaygroundFolder
    kind: str
    share: float
    file: Path
    most: int | None = None  # pairs

    def write(self) -> None:
        draw = random.Random(f"{self.playground.settings.seed} {self.kind} {self.share}")
        plants: dict[str, Callable[[random.Random, RatedPair], dict[str, Any]]] = {
            "ratings": self._ratings,
            "orders": self._orders,
            "raters": self._raters,
            "true": lambda draw, pair: self._row(pair, *_qualities(pair)),
        }
        rows = [plants[self.kind](draw, pair) for pair in self.playground.rated_pairs()[: self.most]]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _ratings(self, draw: random.Random, pair: RatedPair) -> dict[str, Any]:
        return self._row(pair, *(self._noisy(draw, true) for true in _qualities(pair)))

    def _noisy(self, draw: random.Random, true: float) -> float:
        """The true rating, or with the planted share one of another class."""
        others = [centre for number, centre in enumerate(CENTRES) if number != class_of(true)]
        return draw.choice(others) if draw.random() < self.share else true

    def _orders(self, draw: random.Random, pair: RatedPair) -> dict[str, Any]:
        one, other = _qualities(pair)
        return self._row(pair, *((other, one) if draw.random() < self.share else (one, other)))

    def _raters(self, draw: random.Random, pair: RatedPair) -> dict[str, Any]:
        said = [[self._noisy(draw, true) for true in _qualities(pair)] for _ in range(RATERS)]
        one, other = (float(np.mean([of_one[side] for of_one in said])) for side in (0, 1))
        row = self._row(pair, one, other)
        sides = ("chosen", "rejected") if one >= other else ("rejected", "chosen")
        for side, name in enumerate(sides):
            row[f"ratings_{name}"] = {f"rater-{number}": of_one[side] for number, of_one in enumerate(said)}
        return row

    @staticmethod
    def _row(pair: RatedPair, one: float, other: float) -> dict[str, Any]:
        better, worse = (pair.chosen, pair.rejected) if one >= other else (pair.rejected, pair.chosen)
        scores = {"score_chosen": max(one, other), "score_rejected": min(one, other)}
        return {"prompt": pair.prompt.text, "chosen": better, "rejected": worse, **scores}


def _qualities(pair: RatedPair) -> tuple[float, float]:
    return quality(pair.prompt, pair.chosen), quality(pair.prompt, pair.rejected)


def class_of(rating: float) -> int:
    return int(np.searchsorted(EDGES, rating, side="right"))
