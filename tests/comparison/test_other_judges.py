"""What one judge has said of a comparison's arms is not continued by another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mixdpo_ray.comparison.output import CompareOutput
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.recipe.file import load_recipe

RECIPE = str(Path(__file__).parents[2] / "jobs" / "recipes" / "playground-compare.yaml")
JUDGED = ("compare.metric=judge/quality", "answers.judge={engine: playground}")


def output(folder: Path, *overrides: str) -> CompareOutput:
    return CompareOutput(load_recipe(RECIPE, overrides), str(folder))


def test_a_comparison_keeps_its_judge_and_its_way_to_draw_answers(tmp_path: Path) -> None:
    output(tmp_path, *JUDGED).refuse_another_judge()
    output(tmp_path, *JUDGED).claim([])
    output(tmp_path, *JUDGED).refuse_another_judge()
    for other in ("answers.judge={engine: hf, model: other}", "answers.sample.answers_each=7"):
        with pytest.raises(RunConflictError, match="was judged in another way"):
            output(tmp_path, *JUDGED, other).refuse_another_judge()


def test_what_a_judge_said_is_remembered_while_another_metric_is_compared(tmp_path: Path) -> None:
    output(tmp_path, *JUDGED).claim([])
    output(tmp_path).refuse_another_judge()
    output(tmp_path).claim([])
    with pytest.raises(RunConflictError, match=r"answers_each was \d+, is 7"):
        output(tmp_path, *JUDGED, "answers.sample.answers_each=7").refuse_another_judge()
