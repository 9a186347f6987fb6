"""Arena-Hard v2: 500 hard prompts and 250 of creative writing, each with a baseline; the last mark counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from mixdpo_ray.benchmarks.arena_hard import DEGREES, ArenaHard
from mixdpo_ray.benchmarks.benchmark import JudgeSampling
from mixdpo_ray.benchmarks.style_control import StyleFeatures, relative_densities
from mixdpo_ray.benchmarks.verdict import JudgeVerdict

_MARKS = (re.compile(r"\[\[([AB<>=]+)\]\]"), re.compile(r"\[([AB<>=]+)\]"))  # the second where the first is nowhere
# the other way round: the official table knows them too
_TURNED = {"A<<B": "B>>A", "A<B": "B>A", "B=A": "A=B", "B<A": "A>B", "B<<A": "A>>B"}


class ArenaHardV2(ArenaHard):
    """500 hard prompts and 250 of creative writing, each against a baseline: the score at equal style."""

    main: ClassVar[str] = "style_controlled_score"
    judge: ClassVar[JudgeSampling] = JudgeSampling(max_tokens=16000, temperature=0.0)
    baselines: ClassVar[Mapping[str, str]] = {
        "": "o3-mini-2025-01-31",
        "creative_writing": "gemini-2.0-flash-001",
    }
    features: ClassVar[StyleFeatures] = staticmethod(relative_densities)

    @classmethod
    def verdict(cls, said: str) -> JudgeVerdict:
        marks = next((found for mark in _MARKS if (found := mark.findall(said.upper()))), None)
        if marks is None:
            return JudgeVerdict.unreadable("no_mark")
        return DEGREES.get(_TURNED.get(marks[-1], marks[-1])) or JudgeVerdict.unreadable("unknown_mark")
