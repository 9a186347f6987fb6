"""Prompts with one ideal answer each: the quality of every answer is known by rule.

A prompt names an operation and some letters: "sort d a c". The ideal answer follows: "a c d". An answer's quality is 1
to 10 by its edit distance to the ideal one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from mixdpo_ray.pairs.edit_distance import edit_distance

LETTERS = tuple("abcdefghijklmnop")
BEST, WORST = 10.0, 1.0

Letters = list[str]


def _double(letters: Letters) -> Letters:
    return [letter for letter in letters for _ in range(2)]


def _swap(letters: Letters) -> Letters:
    """Exchange neighbours; a last one without a neighbour stays."""
    return [letters[i ^ 1] if (i ^ 1) < len(letters) else letters[i] for i in range(len(letters))]


OPERATIONS: dict[str, Callable[[Letters], Letters]] = {
    "sort": sorted,
    "reverse": lambda letters: letters[::-1],
    "double": _double,
    "swap": _swap,
}
LONGEST_ANSWER = 8  # letters of an ideal answer


@dataclass(frozen=True)
class Prompt:
    operation: str
    letters: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join([self.operation, *self.letters])

    @classmethod
    def of_text(cls, text: str) -> Self:
        operation, *letters = text.split()
        return cls(operation, tuple(letters))

    @property
    def ideal(self) -> Letters:
        return OPERATIONS[self.operation](list(self.letters))


def draw_prompt(draw: random.Random) -> Prompt:
    operation = draw.choice(list(OPERATIONS))
    longest = LONGEST_ANSWER // 2 if operation == "double" else 6
    return Prompt(operation, tuple(draw.choice(LETTERS) for _ in range(draw.randint(3, longest))))


def draw_prompts(draw: random.Random, count: int, taken: set[Prompt] | None = None) -> list[Prompt]:
    """Different from each other and from those that are taken."""
    seen = set(taken or ())
    found: list[Prompt] = []
    while len(found) < count:
        prompt = draw_prompt(draw)
        if prompt not in seen:
            seen.add(prompt)
            found.append(prompt)
    return found


def quality(prompt: Prompt, answer: str) -> float:
    ideal = prompt.ideal
    return WORST + (BEST - WORST) * max(0.0, 1 - edit_distance(answer.split(), ideal) / len(ideal))


def noisy_demonstration(draw: random.Random, prompt: Prompt) -> str:
    """The ideal answer as a careless teacher gives it: letters replaced, left out or added, at a rate of his own."""
    rate = 0.7 * draw.random()
    said: Letters = []
    for letter in prompt.ideal:
        dice = draw.random()
        if dice < rate * 0.5:
            said.append(draw.choice(LETTERS))
        elif dice >= rate * 0.75:
            said += [letter, draw.choice(LETTERS)] if dice < rate else [letter]
    return " ".join(said or [draw.choice(LETTERS)])
