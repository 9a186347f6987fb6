"""Preference pairs as people make them: ratings on a 0.5 grid, with errors, so that small margins are often wrong."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.playground.settings import WorldSettings
from mixdpo_ray.playground.world import BEST, WORST, Prompt, quality


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

    def row(self) -> dict[str, object]:
        """In the columns of ultrafeedback_binarized."""
        asked = {"role": "user", "content": self.prompt.text}
        return {
            "prompt": self.prompt.text,
            "prompt_id": hashlib.sha256(self.prompt.text.encode()).hexdigest(),
            "chosen": [asked, {"role": "assistant", "content": self.chosen}],
            "rejected": [asked, {"role": "assistant", "content": self.rejected}],
            "score_chosen": self.score_chosen,
            "score_rejected": self.score_rejected,
        }


def pair_of(row: dict[str, Any]) -> RatedPair:
    """What `row` wrote."""
    operation, *letters = row["prompt"].split()
    answers = (row[name][-1]["content"] for name in ("chosen", "rejected"))
    return RatedPair(Prompt(operation, tuple(letters)), *answers, row["score_chosen"], row["score_rejected"])


def rate(draw: random.Random, true_quality: float, settings: WorldSettings) -> float:
    """What an annotator says, on the grid 1, 1.5, ..., 10; most of the time people give whole points."""
    steps = 1 if draw.random() < settings.whole_points else 2
    felt = true_quality + draw.gauss(0, settings.noise)
    return min(BEST, max(WORST, round(felt * steps) / steps))


def rate_pairs(
    draw: random.Random, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]], settings: WorldSettings
) -> list[RatedPair]:
    """Best-rated answer against a random other one; prompts whose answers are all alike or empty give none."""
    pairs = []
    for prompt, given in zip(prompts, answers, strict=True):
        told_apart = [answer for answer in dict.fromkeys(given) if answer]
        if len(told_apart) < 2:
            continue
        rated = [(rate(draw, quality(prompt, answer), settings), draw.random(), answer) for answer in told_apart]
        best = max(rated)
        other = draw.choice([candidate for candidate in rated if candidate is not best])
        pairs.append(RatedPair(prompt, best[2], other[2], best[0], other[0]))
    return pairs


def to_jsonl(pairs: Sequence[RatedPair]) -> str:
    return "".join(json.dumps(pair.row()) + "\n" for pair in pairs)
