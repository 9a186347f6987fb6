"""MT-Bench: 80 questions of two turns, each answer graded from 1 to 10, with a reference where there is a right answer.

The second turn is graded with the whole conversation. An unreadable or impossible grade is counted and left out,
above max_missing there is no score; the official script leaves it out in silence, and takes 12 of 10. Differences of
0.3 are within the standard error over its questions. Thirteen of the thirty published references are wrong: give
corrected ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from mixdpo_ray.benchmarks.benchmark import (
    Benchmark,
    BenchmarkPrompt,
    Game,
    JudgedArm,
    JudgeQuestion,
    JudgeSampling,
    Template,
)
from mixdpo_ray.benchmarks.interchange import read_turns
from mixdpo_ray.benchmarks.resampling import Ratio, Statistic
from mixdpo_ray.benchmarks.rows import by_item, field_of, read_json_rows
from mixdpo_ray.benchmarks.templates import filled_messages, require_fields
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict, mark_missing
from mixdpo_ray.errors import EvaluationError

WITH_REFERENCE = ("reasoning", "math", "coding")
TURNS: tuple[Game, ...] = ("turn_1", "turn_2")
_RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
# the official templates by name, and the fields that they must have
_KINDS: dict[str, tuple[str, ...]] = {
    "single-v1": ("question", "answer"),
    "single-v1-multi-turn": ("question_1", "answer_1", "question_2", "answer_2"),
    "single-math-v1": ("question", "ref_answer_1", "answer"),
    "single-math-v1-multi-turn": (
        *("question_1", "ref_answer_1", "question_2", "ref_answer_2"),
        *("answer_1", "answer_2"),
    ),
}


def rating(reply: JudgeReply) -> JudgeVerdict:
    """The first number in double brackets, else in single ones; 1 to 10."""
    found = next((match for pattern in _RATINGS if (match := pattern.search(reply.text))), None)
    if found is None:
        return mark_missing(reply)
    value = float(found[1])
    return JudgeVerdict(value) if 1 <= value <= 10 else JudgeVerdict.unreadable("out_of_range")


class MTBench(Benchmark):
    """80 questions of two turns, each answer graded from 1 to 10: the mean grade."""

    main: ClassVar[str] = "rating"
    judge: ClassVar[JudgeSampling] = JudgeSampling(max_tokens=2048, temperature=0.0)

    prompts: str = Field(description="File of its prompts, as the benchmark publishes it")
    references: str = Field(description="File of reference answers, corrected where the published ones are wrong")
    template: str = Field(description="The judge's templates, one JSON object a line, with their official names")

    def read_prompts(self) -> tuple[BenchmarkPrompt, ...]:
        references = read_turns(self.references)
        prompts = []
        for row in read_json_rows(self.prompts):
            item, category = str(field_of(row, "question_id", self.prompts)), field_of(row, "category", self.prompts)
            if category in WITH_REFERENCE and item not in references:
                raise EvaluationError(f"{self.references}: no reference for question {item} ({category}); add it")
            reference = references[item] if category in WITH_REFERENCE else ()
            prompts.append(BenchmarkPrompt(item, tuple(field_of(row, "turns", self.prompts)), category, reference))
        return tuple(prompts)

    def read_template(self) -> Template:
        rows = by_item([(str(row.get("name")), row) for row in read_json_rows(self.template)], self.template)
        template = {}
        for name, fields in _KINDS.items():
            if name not in rows:
                raise EvaluationError(f"{self.template}: no template is named {name}; give the official file")
            system, user = (field_of(rows[name], part, self.template) for part in ("system_prompt", "prompt_template"))
            require_fields(user, fields, f"{self.template}, {name}")
            template[name] = ({"role": "system", "content": system}, {"role": "user", "content": user})
        return template

    def games(self, prompt: BenchmarkPrompt) -> tuple[Game, ...]:
        return TURNS[: len(prompt.turns)]

    def question(
        self, prompt: BenchmarkPrompt, game: Game, answer: tuple[str, ...], template: Template
    ) -> JudgeQuestion:
        numbered = {
            f"{name}_{turn}": text
            for name, texts in (("question", prompt.turns), ("answer", answer), ("ref_answer", prompt.reference))
            for turn, text in enumerate(texts, 1)
        }
        kind = "single-math-v1" if prompt.reference else "single-v1"
        fields = {"question": prompt.turns[0], "answer": answer[0], **numbered}
        messages = template[f"{kind}-multi-turn" if game == "turn_2" else kind]
        return JudgeQuestion(prompt.item, game, filled_messages(messages, fields))

    def read(self, question: JudgeQuestion, reply: JudgeReply) -> JudgeVerdict:
        return rating(reply)

    def statistics(self, arms: Mapping[str, JudgedArm]) -> dict[str, dict[str, Statistic]]:
        return {name: _averages(arm) for name, arm in arms.items()}


def _averages(arm: JudgedArm) -> dict[str, Statistic]:
    """Mean grades; turns and categories without a readable one have none."""
    categories = sorted({prompt.category for prompt in arm.prompts.values()})
    lengths = {item: (float(sum(map(len, turns))), float(len(turns))) for item, turns in arm.answers.items()}
    grades = {
        "rating": _grades(arm, TURNS),
        "first_turn": _grades(arm, TURNS[:1]),
        "second_turn": _grades(arm, TURNS[1:]),
        **{category: _grades(arm, TURNS, category) for category in categories if len(categories) > 1},
    }
    return {
        **{name: Ratio.of(found, percent=False) for name, found in grades.items() if found},
        "average_length": Ratio.of(lengths, percent=False),
    }


def _grades(arm: JudgedArm, turns: tuple[Game, ...], category: str | None = None) -> dict[str, tuple[float, float]]:
    """The sum of a prompt's readable grades, and how many they are."""
    parts = {}
    for item, prompt in arm.prompts.items():
        if category in (None, prompt.category):
            values = [value for turn in turns if (value := arm.verdict(item, turn).value) is not None]
            if values:
                parts[item] = (sum(values), float(len(values)))
    return parts
