"""Names of what is measured on held-out pairs: one list, for those who measure and those who read a recipe.

A recipe names one of them to keep the best checkpoint, to compare trials, or to compare arms. Those of a further set
have its name behind eval_, as eval_code_loss, which is how transformers and TRL name them. It imports nothing heavy.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Final

from mixdpo_ray.errors import RecipeError

EDGES = (0.0, 0.5, 1.0, 2.0, 4.0)  # of the buckets of rating margin; negative margins fall in the first
MEASURES = ("loss", "logps/chosen", "logps/rejected", "rewards/chosen", "rewards/rejected", "rewards/accuracies",
            "logps/chosen_drift", "logps/rejected_drift", "sft")  # fmt: skip
BY_BUCKET = ("rewards/accuracies", "rewards/margins", "logps/chosen_drift")
BY_DIFFICULTY = ("loss", "rewards/accuracies")  # of the pairs that are easy, and of those that are hard


def bucket_name(number: int) -> str:
    ends = [f"{edge:g}" for edge in EDGES] + ["inf"]
    return f"margin_{ends[number]}-{ends[number + 1]}"


MARGIN_BUCKETS = tuple(map(bucket_name, range(len(EDGES))))
HELD_OUT_METRICS = (
    *(f"eval_{name}" for name in (*MEASURES[:-1], "rewards/margins", "nll/chosen")),
    *(f"eval_{name}/{side}" for name in BY_DIFFICULTY for side in ("easy", "hard")),
    *(f"eval_{name}/{bucket}" for name in (*BY_BUCKET, "pairs") for bucket in MARGIN_BUCKETS),
)

DEVIATIONS = ("eval_std/rewards/margins", "eval_std/logps/chosen_drift")  # over pairs, beside the means
_OF_A_SET = frozenset((*HELD_OUT_METRICS, *DEVIATIONS))

WIN_RATE: Final = "judge/win_rate"  # of what a model writes, by the recipe's judge
JUDGED_QUALITY: Final = "judge/quality"
JUDGE_METRICS = (WIN_RATE, JUDGED_QUALITY)
_JUDGED_WORDS = {WIN_RATE: "win rate over the model before training", JUDGED_QUALITY: "quality by the judge (1 to 10)"}

_WORDS = {
    "loss": "loss", "logps/chosen": "log-prob of chosen answers", "logps/rejected": "log-prob of rejected answers",
    "rewards/chosen": "reward of chosen answers", "rewards/rejected": "reward of rejected answers",
    "rewards/accuracies": "preference accuracy", "rewards/margins": "reward margin",
    "logps/chosen_drift": "chosen drift (nats)", "logps/rejected_drift": "rejected drift (nats)",
    "nll/chosen": "loss per token of chosen answers", "pairs": "pairs",
}  # fmt: skip


def of_set(metric: str, name: str) -> str:
    """The metric as it is called of a further held-out set; no name is that of the main one."""
    return f"eval_{name}_{metric.removeprefix('eval_')}" if name else metric


def set_and_metric(metric: str) -> tuple[str, str]:
    """The held-out set that a metric is of, and what the metric is called of the main one, whose name is empty."""
    bare = metric.removeprefix("eval_")
    if metric not in _OF_A_SET and bare != metric:
        for end in (end for end, sign in enumerate(bare) if sign == "_" and end):
            if (plain := f"eval_{bare[end + 1 :]}") in _OF_A_SET:
                return bare[:end], plain
    return "", metric


def metric_in_words(metric: str) -> str:
    """What a table calls a metric: held-out preference accuracy. A name of another kind stays, but for its strokes."""
    name, plain = set_and_metric(metric)
    if name:
        return f"{metric_in_words(plain)} ({name})"
    if metric not in HELD_OUT_METRICS:
        return _JUDGED_WORDS.get(metric) or metric.replace("_", " ")
    measure = metric.removeprefix("eval_")
    if measure in _WORDS:
        return f"held-out {_WORDS[measure]}"
    measure, _, group = measure.rpartition("/")
    pairs = (
        f"{group} pairs" if "margin_" not in group else f"margins {group.removeprefix('margin_').replace('-', ' to ')}"
    )
    return f"held-out {_WORDS[measure]}, {pairs}"


def needs_reference(metric: str) -> bool:
    return "_drift" in set_and_metric(metric)[1]


def is_a_loss(metric: str) -> bool:
    """Whether a smaller value is a better one."""
    return set_and_metric(metric)[1].startswith(("eval_loss", "eval_nll"))


def unknown_metric(name: str, others: Sequence[str] = ()) -> str | None:
    """What is wrong with the name of a held-out metric, and which was meant; nothing where there is such a metric.

    `others`: what else may be meant. Whether there is a set of that name, the whole recipe knows.
    """
    if set_and_metric(name)[1] in HELD_OUT_METRICS:
        return None
    spellings = {spelling: metric for metric in reversed(HELD_OUT_METRICS) for spelling in _spellings(metric)}
    spellings.update((other, other) for other in others)
    close = difflib.get_close_matches(name, spellings, n=1, cutoff=0.5)
    known = ", ".join([*others, *(metric for metric in HELD_OUT_METRICS if "margin_" not in metric)])
    meant = f"did you mean {spellings[close[0]]}?" if close else f"known: {known}"
    return f"{name!r} is not measured on held-out pairs; {meant}"


def _spellings(metric: str) -> tuple[str, ...]:
    """The name, without eval_, and from its last stroke: people write the end of a name that they remember."""
    bare = metric.removeprefix("eval_")
    return (metric, bare) if "margin_" in bare else (metric, bare, bare.rpartition("/")[2])


def refuse_unmeasured(setting: str, metric: str, reference: bool) -> None:
    """Drift is measured against reference log-probs, which some objectives have none of."""
    if needs_reference(metric) and not reference:
        raise RecipeError(
            f"{setting} {metric} is measured against a reference, and the objective has none: take "
            "eval_rewards/accuracies, or an objective with a reference"
        )
