"""The tasks part of a recipe's evaluation: what else a tuned model must still be able to do, by lm-eval."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from mixdpo_ray.settings import Settings

Shots = Annotated[int, Field(ge=0)]
PAPERS_TASKS = {
    "mmlu": 5, "truthfulqa_mc2": 0, "hellaswag": 10, "arc_challenge": 25, "gsm8k": 5, "winogrande": 5,
}  # fmt: skip


class TasksSettings(Settings):
    """Downstream tasks (needs the extra `lm-eval`), in a process of their own on a node of the cluster."""

    shots: dict[str, Shots] = Field(
        PAPERS_TASKS, min_length=1, description="Task of lm-eval -> how many worked examples stand before a question"
    )
    folder: str | None = Field(None, description="Folder with task files (YAML) of one's own, which the nodes reach")
    most: int | None = Field(None, ge=1, description="At most so many questions of each task; all where none is given")
    batch_size: int = Field(8, ge=1, description="Questions that are scored at once")
    chat_template: bool = Field(False, description="Ask through the chat template; the paper's figures are without")
