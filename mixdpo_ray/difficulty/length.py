"""Length: short answers are easy, by the oldest curriculum there is."""

from typing import ClassVar, Literal

from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, Formula, MetricInputs


class Length(Formula):
    """Minus the number of tokens: short is easy."""

    needs: ClassVar[str] = "nothing"

    of: Literal["chosen", "rejected", "answers", "pair"] = Field(
        "chosen", description="What is counted: one answer, both, or both and the prompt"
    )

    def values(self, facts: MetricInputs) -> Column:
        answers = facts.chosen_length + facts.rejected_length
        counted = {
            "chosen": facts.chosen_length,
            "rejected": facts.rejected_length,
            "answers": answers,
            "pair": answers + facts.prompt_length,
        }
        return -counted[self.of]
