"""Preference pairs as people make them: ratings on a 0.5 grid, with errors, so that small margins are often wrong.

Annotators are kind: they use the upper part of the scale, so ratings lie closer together than true qualities do. With
the defaults a tenth of the pairs are exact ties, and another tenth, most of them with small margins, are the wrong way
round.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from mixdpo_ray.playground.prompts import BEST, WORST, Prompt, quality
from mixdpo_ray.playground.settings import PlaygroundSettings


@dataclass(frozen=True)
class RatedPair:
    prompt: Prompt
    chosen: str
    rejected: str
    score_chosen: float
    score_rejected: float

    @property
    def margin(self) -> float:
        return self.score_chosen - self.score_rejected

    @property
    def right(self) -> float:
        """1 where the chosen answer truly is the better one, half where they are equally good."""
        better = quality(self.prompt, self.chosen) - quality(self.prompt, self.rejected)
        return 0.5 if better == 0 else float(better > 0)

    def row(self) -> dict[str, Any]:
        """The pair as a row in the columns of ultrafeedback_binarized."""
        asked = {"role": "user", "content": self.prompt.text}
        return {
            "prompt": self.prompt.text,
            "prompt_id": hashlib.sha256(self.prompt.text.encode()).hexdigest(),
            "chosen": [asked, {"role": "assistant", "content": self.chosen}],
            "rejected": [asked, {"role": "assistant", "content": self.rejected}],
            "score_chosen": self.score_chosen,
            "score_rejected": self.score_rejected,
        }

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Self:
        return cls(
            Prompt.of_text(row["prompt"]),
            row["chosen"][-1]["content"],
            row["rejected"][-1]["content"],
            row["score_chosen"],
            row["score_rejected"],
        )


def rate(draw: random.Random, true_quality: float, settings: PlaygroundSettings) -> float:
    """What an annotator says, on the grid 1, 1.5, ..., 10."""
    meant = BEST - settings.spread * (BEST - true_quality)
    return min(BEST, max(WORST, round(2 * (meant + draw.gauss(0, settings.noise))) / 2))


def rate_pairs(
    draw: random.Random, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]], settings: PlaygroundSettings
) -> list[RatedPair]:
    """The best-rated answer against a random other one; a prompt whose answers are all alike or empty gives none."""
    pairs = []
    for prompt, given in zip(prompts, answers, strict=True):
        different = [answer for answer in dict.fromkeys(given) if answer]
        if len(different) < 2:
            continue
        draw.shuffle(different)  # so that an equal rating prefers nobody
        ratings = {answer: rate(draw, quality(prompt, answer), settings) for answer in different}
        chosen = max(different, key=ratings.__getitem__)
        rejected = draw.choice([answer for answer in different if answer != chosen])
        pairs.append(RatedPair(prompt, chosen, rejected, ratings[chosen], ratings[rejected]))
    return pairs


def write_jsonl(pairs: Sequence[RatedPair], path: Path) -> None:
    path.write_text("".join(json.dumps(pair.row()) + "\n" for pair in pairs), encoding="utf-8")


def read_jsonl(path: Path) -> list[RatedPair]:
    return [RatedPair.of_row(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
