"""Arena-Hard v0.1: 500 prompts against gpt-4-0314; marks must agree, and a reply without one is continued."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from mixdpo_ray.benchmarks.arena_hard import CONTINUE, DEGREES, ArenaHard
from mixdpo_ray.benchmarks.benchmark import JudgeQuestion, JudgeSampling, Template
from mixdpo_ray.benchmarks.style_control import StyleFeatures, relative_counts
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict

_MARK = re.compile(r"\[\[([AB<>=]+)\]\]")


class ArenaHardV01(ArenaHard):
    """500 hard prompts against gpt-4-0314 in two games: the mean outcome of the battles."""

    main: ClassVar[str] = "score"
    judge: ClassVar[JudgeSampling] = JudgeSampling(max_tokens=4096, temperature=0.0)
    baselines: ClassVar[Mapping[str, str]] = {"": "gpt-4-0314"}
    features: ClassVar[StyleFeatures] = staticmethod(relative_counts)
    whole_prompts: ClassVar[bool] = False  # a game without a verdict is no battle, the other one counts

    @classmethod
    def verdict(cls, said: str) -> JudgeVerdict:
        marks = set(_MARK.findall(said))
        if not marks:
            return JudgeVerdict.unreadable("no_mark")
        if len(marks) > 1:
            return JudgeVerdict.unreadable("marks_disagree")
        return DEGREES.get(marks.pop()) or JudgeVerdict.unreadable("unknown_mark")

    def again(self, question: JudgeQuestion, reply: JudgeReply, template: Template) -> JudgeQuestion | None:
        """Once more, in the same conversation, where the first reply has no mark at all; then all said is read."""
        if question.said is not None or CONTINUE not in template or _MARK.search(reply.text):
            return None
        messages = (*question.messages, {"role": "assistant", "content": reply.text}, *template[CONTINUE])
        return JudgeQuestion(question.item, question.game, messages, said=reply.text)
