"""How several rated answers to a prompt become one pair.

To add a way: a function of the answers, in the order of their lots, and its key in PAIRINGS. Lots are drawn by a hash
of the texts, so a pair depends neither on the order of rows nor on who reads them; among equally rated answers the one
drawn first counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal, Self

from pydantic import Field, NonNegativeFloat, field_validator, model_validator

from mixdpo_ray.pairs.edit_distance import edit_distance
from mixdpo_ray.pairs.pair import Candidate, answered, content_hash
from mixdpo_ray.pairs.ratings import RatedAnswer, is_number
from mixdpo_ray.settings import Settings
from mixdpo_ray.wording import did_you_mean

Chosen = tuple[RatedAnswer, RatedAnswer]  # and the rejected one


@dataclass(frozen=True)
class Answers:
    """Answers to one prompt, as a source rates them."""

    prompt: list[Any]
    rated: Sequence[RatedAnswer]
    source: str
    scale: tuple[float, float] | None = None  # the lowest and the highest rating
    template: tuple[Any, Any] = (None, None)  # tools, and settings of the chat template


@dataclass(frozen=True)
class Lots:
    answers: Sequence[RatedAnswer]  # usable ones, in the order in which they were drawn; two at least
    prompt: str  # names the prompt in draws


class PairSettings(Settings):
    rule: str | None = Field(
        None, description="Which of several answers become a pair; none is the way of the format (best_vs_random)"
    )
    margins: tuple[NonNegativeFloat, ...] = Field(
        (), description="margin_controlled: aim at one of these score differences, drawn for each prompt"
    )
    epsilon: float = Field(1.0, gt=0, description="dcrm: added to the distance, in words, that margins are divided by")
    augment: Literal["reward"] | None = Field(
        None, description="reward: each training pair twice, under a system prompt that states the rating to achieve"
    )
    flip: float = Field(0.0, ge=0, le=1, description="Exchange chosen and rejected with this probability (label noise)")
    flip_seed: int = Field(42, ge=0, description="Which pairs are flipped, by a hash of the pair's content")

    @field_validator("rule")
    @classmethod
    def _known_rule(cls, name: str | None) -> str | None:
        if name is not None and name not in PAIRINGS:
            raise ValueError(f"unknown rule; {did_you_mean(name, PAIRINGS)}")
        return name

    @model_validator(mode="after")
    def _read_by_their_rule(self) -> Self:
        if (self.rule == "margin_controlled") != bool(self.margins):
            raise ValueError("rule margin_controlled and margins belong together: give both or neither")
        if self.rule != "dcrm" and self.epsilon != 1:
            raise ValueError("epsilon belongs to rule dcrm: leave it out")
        return self


def best_vs_random(lots: Lots, settings: PairSettings) -> Chosen:
    """The best answer against another one at random, as UltraFeedback was binarised."""
    best = _best(lots.answers)
    return best, next(answer for answer in lots.answers if answer is not best)


def max_min(lots: Lots, settings: PairSettings) -> Chosen:
    best = _best(lots.answers)
    return best, min(_others(lots.answers, best), key=lambda answer: answer.score)


def max_max(lots: Lots, settings: PairSettings) -> Chosen:
    """The best two."""
    best = _best(lots.answers)
    return best, _best(_others(lots.answers, best))


def margin_controlled(lots: Lots, settings: PairSettings) -> Chosen:
    """The best one against the answer whose distance in rating is closest to a target of the prompt's own."""
    drawn = int(content_hash(["margin", lots.prompt]), 16)
    target = settings.margins[drawn % len(settings.margins)]
    best = _best(lots.answers)
    others = _others(lots.answers, best)
    return best, min(others, key=lambda answer: abs(best.score - answer.score - target))


def dcrm(lots: Lots, settings: PairSettings) -> Chosen:
    """Best of N squared: the pair of the largest margin for how much its answers differ.

    (sigmoid(margin) - 1/2) / (words to edit + epsilon): DCRM without the difference in log-probs, for which
    every answer of every prompt would have to be scored by the reference model before there are pairs.
    """
    words = {id(answer): answer.text.split() for answer in lots.answers}

    def worth(pair: Chosen) -> float:
        better, worse = pair
        distance = edit_distance(words[id(better)], words[id(worse)])
        return math.tanh((better.score - worse.score) / 2) / 2 / (distance + settings.epsilon)  # sigmoid - 1/2

    return max((pair for pair in permutations(lots.answers, 2) if pair[0].score >= pair[1].score), key=worth)


PAIRINGS: dict[str, Callable[[Lots, PairSettings], Chosen]] = {
    "best_vs_random": best_vs_random,
    "max_random": best_vs_random,  # the same under the name that Online-RLHF gave it
    "max_min": max_min,
    "max_max": max_max,
    "margin_controlled": margin_controlled,
    "dcrm": dcrm,
}


def paired(answers: Answers | str, settings: PairSettings) -> Candidate | str:
    """Answers without a usable rating or text do not take part; fewer than two others are no pair."""
    if isinstance(answers, str):
        return answers
    usable = [answer for answer in answers.rated if is_number(answer.score) and isinstance(answer.text, str)]
    if len(usable) < 2:
        return "too_few_rated_answers"
    key = repr(answers.prompt)
    drawn = sorted(usable, key=lambda answer: content_hash([key, repr(answer.text)]))
    chosen, rejected = PAIRINGS[settings.rule or "best_vs_random"](Lots(drawn, key), settings)
    return Candidate(
        answered(answers.prompt, chosen.text),
        answered(answers.prompt, rejected.text),
        answers.source,
        chosen.score,
        rejected.score,
        scale=answers.scale,
        ratings=(chosen.ratings, rejected.ratings),
        template=answers.template,
    )


def _best(answers: Sequence[RatedAnswer]) -> RatedAnswer:
    return max(answers, key=lambda answer: answer.score)


def _others(answers: Sequence[RatedAnswer], best: RatedAnswer) -> list[RatedAnswer]:
    return [answer for answer in answers if answer is not best]
