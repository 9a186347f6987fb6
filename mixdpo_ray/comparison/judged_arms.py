"""Arms that are compared by what their models write: workers leave answers, and the driver asks the judge in the end.

One process asks, so that the judge's budget and pace hold for the whole comparison; what it said is in its store, and
in each arm's summary, and is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mixdpo_ray.bar import say
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.comparison.arms import Arm
from mixdpo_ray.errors import EvaluationError
from mixdpo_ray.evaluation.held_out_answers import ANSWERS_FILE, KeyedAnswers, read_keyed_answers
from mixdpo_ray.evaluation.judged_model import JUDGED_FILE, AnswerJudging, answer_judging
from mixdpo_ray.judges.judge import ChatJudge, open_judge
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.storage import join
from mixdpo_ray.training.metric_names import JUDGE_METRICS, WIN_RATE

JudgingOfArms = dict[str, AnswerJudging]  # by the model and the pairs that arms have in common


def is_judged(recipe: Recipe) -> bool:
    return recipe.compare.measure.name in JUDGE_METRICS


def judging_of(recipe: Recipe, known: JudgingOfArms) -> AnswerJudging | None:
    """What is asked of an arm's model; made once for all arms that begin with one model, on the same pairs."""
    if not is_judged(recipe):
        return None
    key = fingerprint([recipe.model.model_dump(mode="json"), recipe.data.model_dump(mode="json")])
    if key not in known:
        metrics = [WIN_RATE] if recipe.compare.untrained and recipe.compare.measure.name != WIN_RATE else []
        known[key] = answer_judging(recipe, list(dict.fromkeys([recipe.compare.measure.name, *metrics])))
    return known[key]


def both_judges(
    one: Callable[[str], dict[str, float]] | None, other: Callable[[str], dict[str, float]] | None
) -> Callable[[str], dict[str, float]] | None:
    """What a worker does with an exported model, where there is more than one thing to do."""
    if one is None or other is None:
        return one or other
    return _InTurn(one, other)


class _InTurn:
    def __init__(self, *judges: Callable[[str], dict[str, float]]):
        self.judges = judges

    def __call__(self, model: str) -> dict[str, float]:
        return {name: value for judge in self.judges for name, value in judge(model).items()}


def judge_arms(
    recipe: Recipe, arms: Iterable[tuple[Arm, RunRecord]], untrained: Iterable[tuple[Arm, RunRecord]],
    known: JudgingOfArms,
) -> None:  # fmt: skip
    """Add to each summary what the judge says of the answers that the arm's model left."""
    if not is_judged(recipe):
        return
    left: list[tuple[Arm, RunRecord, dict[str, Any], KeyedAnswers]] = []
    for arm, record in arms:
        summary = record.summary()
        if summary is None or _is_done(recipe, summary):
            continue
        answers = read_keyed_answers(join(record.folder, ANSWERS_FILE))
        if answers is None:
            say(f"warning: {arm.label} was trained when nothing was to be judged: it has no answers; train it anew")
        else:
            left.append((arm, record, summary, answers))
    for arm, record in untrained:
        summary, judging = record.summary() or {"seconds": 0.0}, judging_of(arm.recipe, known)
        if judging is not None and not _is_done(recipe, summary):
            left.append((arm, record, summary, judging.untrained))
    if not left:
        return
    with open_judge(recipe) as judge:
        for arm, record, summary, answers in left:
            _judge(arm, record, summary, answers, judge, known)


def _is_done(recipe: Recipe, summary: Mapping[str, Any]) -> bool:
    return recipe.compare.measure.name in (summary.get("judged") or {})


def _judge(
    arm: Arm, record: RunRecord, summary: dict[str, Any], answers: KeyedAnswers, judge: ChatJudge, known: JudgingOfArms
) -> None:
    judging = judging_of(arm.recipe, known)
    assert judging is not None, "whoever asks has found the metric to be the judge's"
    try:
        judged = judging.judged(answers, judge)
    except EvaluationError as error:  # of this model's answers alone
        say(f"warning: {arm.label}: {error}")
        return
    judged.prompts.write(join(record.folder, JUDGED_FILE))
    record.write_summary({**summary, "judged": {**(summary.get("judged") or {}), **judged.metrics}})
