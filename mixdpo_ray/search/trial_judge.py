"""The judge of a search whose metric is of what models write: one for all trials, with one budget and one pace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.errors import EvaluationError, MixDPOError
from mixdpo_ray.evaluation.held_out_answers import ANSWERS_FILE, read_keyed_answers
from mixdpo_ray.evaluation.judged_model import JUDGED_FILE, AnswerJudging, answer_judging
from mixdpo_ray.judges.judge import ChatJudge, open_judge
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.storage import join
from mixdpo_ray.training.metric_names import JUDGE_METRICS


class JudgeStoppedError(MixDPOError):
    """The judge cannot be asked: so the next trial's answers could not be judged either."""


@dataclass(frozen=True)
class TrialJudge:
    judging: AnswerJudging
    judge: ChatJudge

    def add_to(self, record: RunRecord, summary: dict[str, Any]) -> dict[str, Any]:
        """The summary with what the judge says of the answers that were left beside it. Nothing is asked twice."""
        if self.judging.metrics[0] in summary["eval_after"]:
            return summary
        answers = read_keyed_answers(join(record.folder, ANSWERS_FILE))
        if answers is None:
            raise EvaluationError(f"{record.folder} has no {ANSWERS_FILE} to judge: delete that folder, and repeat")
        try:
            judged = self.judging.judged(answers, self.judge)
        except EvaluationError:
            raise  # of this model's answers
        except MixDPOError as error:
            raise JudgeStoppedError(
                f"{error}; what was trained is kept, and judged when the command is repeated"
            ) from error
        judged.prompts.write(join(record.folder, JUDGED_FILE))
        summary = {**summary, "eval_after": {**summary["eval_after"], **judged.metrics}}
        record.write_summary(summary)
        return summary


def judged_names(recipe: Recipe) -> tuple[str, ...]:
    """The metrics of a search that are the judge's."""
    return tuple(name for name in dict.fromkeys(recipe.tune.named_metrics) if name in JUDGE_METRICS)


@contextmanager
def judge_of_trials(recipe: Recipe) -> Iterator[TrialJudge | None]:
    """None where no metric is of the judge."""
    names = judged_names(recipe)
    if not names:
        yield None
        return
    judging = answer_judging(recipe, names)
    with open_judge(recipe) as judge:
        yield TrialJudge(judging, judge)
