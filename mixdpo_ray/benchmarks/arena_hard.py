"""Arena-Hard, what its versions share: two games a prompt against a baseline, verdicts of five degrees, and the score.

Game 1 shows the baseline as A, game 2 the model. A strong verdict counts as three battles, a tie as half a win, and
the score is the mean outcome of the battles, which Bradley and Terry's model against one baseline comes to. Intervals
draw prompts: drawing battles, as the official scripts do, treats the games of a prompt as independent and is too
narrow.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import yaml
from pydantic import Field

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt, Game, JudgedArm, JudgeQuestion, JudgeSampling, Template
from mixdpo_ray.benchmarks.interchange import read_arena_answers
from mixdpo_ray.benchmarks.pairwise import PairwiseBenchmark
from mixdpo_ray.benchmarks.resampling import BenchmarkScore, Ratio, Statistic
from mixdpo_ray.benchmarks.rows import field_of, read_json_rows, read_text
from mixdpo_ray.benchmarks.style_control import (
    Control,
    StyledBattles,
    StyleFeatures,
    style,
    style_controlled,
)
from mixdpo_ray.benchmarks.templates import filled_messages, require_fields
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict, mark_missing
from mixdpo_ray.errors import EvaluationError

STRONG = 3  # battles that a strong verdict counts for
DEGREES: dict[str, JudgeVerdict] = {  # A is shown first
    "A>>B": JudgeVerdict(1.0, STRONG),
    "A>B": JudgeVerdict(1.0),
    "A=B": JudgeVerdict(0.5),
    "B>A": JudgeVerdict(0.0),
    "B>>A": JudgeVerdict(0.0, STRONG),
}
CONTINUE = "continue"  # the kind of template that asks a judge to come to its verdict


class ArenaHard(PairwiseBenchmark):
    judge: ClassVar[JudgeSampling]
    baselines: ClassVar[Mapping[str, str]]  # by category: the model whose answers are the reference; "" for all others
    features: ClassVar[StyleFeatures]  # of style

    prompts: str = Field(description="File of its prompts, as the benchmark publishes it")
    references: tuple[str, ...] = Field(description="Files of the baselines' answers, as the benchmark publishes them")
    template: str = Field(
        description="YAML with system_prompt (a text, or one for each category), prompt_template and, for version 0.1, "
        "continue_prompt, which asks a judge that gave no verdict to come to one"
    )
    control: Control = Field("both", description="What style_controlled_score takes out: length, markdown or both")

    @classmethod
    @abstractmethod
    def verdict(cls, said: str) -> JudgeVerdict: ...

    def read_prompts(self) -> tuple[BenchmarkPrompt, ...]:
        answers = {model: found for path in self.references for model, found in read_arena_answers(path).items()}
        prompts = []
        for row in read_json_rows(self.prompts):
            item = str(row.get("uid") or field_of(row, "question_id", self.prompts))
            text = row["prompt"] if "prompt" in row else field_of(row, "turns", self.prompts)[0]["content"]
            category = row.get("category", "")
            baseline = self.baselines.get(category, self.baselines.get("", ""))
            if item not in answers.get(baseline, {}):
                raise EvaluationError(
                    f"references: no answer of {baseline or category!r} to prompt {item}; give the file of its answers"
                )
            prompts.append(BenchmarkPrompt(item, (text,), category, (answers[baseline][item],)))
        return tuple(prompts)

    def read_template(self) -> Template:
        try:
            found: Any = yaml.safe_load(read_text(self.template))
            system, user = found["system_prompt"], found["prompt_template"]
            user = user if isinstance(user, str) else user[0]
        except yaml.YAMLError as error:
            raise EvaluationError(f"{self.template}: no YAML ({' '.join(str(error).split())}); correct it") from None
        except (LookupError, TypeError) as error:
            raise EvaluationError(
                f"{self.template}: lacks system_prompt or prompt_template ({error}); add them"
            ) from None
        old = "{ANSWER_A}" not in user
        require_fields(user, ("question_1", "answer_1", "answer_2") if old else _FIELDS, self.template)
        if len(self.baselines) > 1 and not isinstance(system, dict):
            raise EvaluationError(
                f"{self.template}: system_prompt is one text, but the judge of each category has one of its own; "
                "give them by category"
            )
        by_category = system if isinstance(system, dict) else {"": system}
        kinds = {
            category: ({"role": "system", "content": text}, {"role": "user", "content": user})
            for category, text in by_category.items()
        }
        again = found.get("continue_prompt")
        return {**kinds, **({CONTINUE: ({"role": "user", "content": again},)} if again else {})}

    def question(
        self, prompt: BenchmarkPrompt, game: Game, answer: tuple[str, ...], template: Template
    ) -> JudgeQuestion:
        texts = (prompt.turns[0], *self.shown(prompt, game, answer))
        fields = {**dict(zip(_FIELDS, texts, strict=True)), **dict(zip(_OLD_FIELDS, texts, strict=True))}
        messages = template.get(prompt.category) or template.get("")
        if messages is None:
            raise EvaluationError(f"{self.template}: system_prompt has no text for {prompt.category!r}; add it")
        return JudgeQuestion(prompt.item, game, filled_messages(messages, fields))

    def read(self, question: JudgeQuestion, reply: JudgeReply) -> JudgeVerdict:
        verdict = self.verdict(f"{question.said or ''}\n{reply.text}")
        return mark_missing(reply) if verdict.reason == "no_mark" else verdict

    def statistics(self, arms: Mapping[str, JudgedArm]) -> dict[str, dict[str, Statistic]]:
        """Scores of each category, as each has a baseline of its own; named by it where there are several."""
        found: dict[str, dict[str, Statistic]] = {name: {} for name in arms}
        categories = sorted({prompt.category for arm in arms.values() for prompt in arm.prompts.values()})
        for category in categories:
            parts = {name: _of_category(arm, category) for name, arm in arms.items()}
            kept = {name: arm for name, arm in parts.items() if self.played(arm)}
            if not kept:
                continue
            styled = {name: self._styled(arm) for name, arm in kept.items()}
            at_equal, at_mean = (
                style_controlled(styled, type(self).features, self.control, centred=centred)
                for centred in (False, True)
            )
            prefix = f"{category}/" if len(categories) > 1 else ""
            for name, arm in kept.items():
                statistics: dict[str, Statistic] = {
                    "score": Ratio.of(self.battles(arm)),
                    "style_controlled_score": at_equal[name],
                    "style_controlled_score_centred": at_mean[name],
                    **self.leaning(arm),
                }
                found[name] |= {prefix + key: statistic for key, statistic in statistics.items()}
        return found

    def notes(self, scores: Mapping[str, BenchmarkScore], statistics: Mapping[str, Statistic]) -> Iterator[str]:
        yield from super().notes(scores, statistics)
        yield "style_controlled_score is at equal style; the centred one is the official script's, over these arms"

    def _styled(self, arm: JudgedArm) -> StyledBattles:
        battles = self.battles(arm)
        model = {item: style(arm.answers[item][0]) for item in battles}
        return StyledBattles(battles, model, {item: style(arm.prompts[item].reference[0]) for item in battles})


_FIELDS = ("QUESTION", "ANSWER_A", "ANSWER_B")
_OLD_FIELDS = ("question_1", "answer_1", "answer_2")


def _of_category(arm: JudgedArm, category: str) -> JudgedArm:
    prompts = {item: prompt for item, prompt in arm.prompts.items() if prompt.category == category}
    return JudgedArm(prompts, arm.answers, arm.verdicts)
