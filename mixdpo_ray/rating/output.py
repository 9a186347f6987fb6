"""What a rating leaves: a file that prepare reads, the prompts that are no pairs, and a report with a picture."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from mixdpo_ray import storage
from mixdpo_ray.benchmarks.verdict import JudgeVerdict
from mixdpo_ray.pairs.convert import Refusal
from mixdpo_ray.pairs.quarantine import QUARANTINE, Quarantine
from mixdpo_ray.pairs.rated_answers import why_no_pair
from mixdpo_ray.rating.answered_prompts import AnsweredPrompt, ReadAnswers
from mixdpo_ray.rating.combine import CombinedRatings, Groups, Ratings, agreement, ties
from mixdpo_ray.rating.picture import draw_ratings
from mixdpo_ray.rating.rated_table import rated_folder
from mixdpo_ray.rating.report import RateReport, RaterSummary
from mixdpo_ray.recipe.recipe import Recipe


def ratings_file(recipe: Recipe, ending: str) -> str:
    return storage.join(rated_folder(recipe), f"{recipe.output.name}.{ending}")


def write_ratings(
    recipe: Recipe,
    read: ReadAnswers,
    verdicts: Mapping[str, Sequence[JudgeVerdict]],
    ratings: Mapping[str, Ratings],
    groups: Groups,
    combined: CombinedRatings,
) -> RateReport:
    pairs = recipe.answers.rate.pairs
    file, picture, aside = (ratings_file(recipe, ending) for ending in ("jsonl", "png", QUARANTINE))
    refused, lines, margins, against = list(read.refused), [], [], 0
    for number, (prompt, group) in enumerate(zip(read.prompts, groups, strict=True)):
        scores = combined.scores[group]
        reason = _why_not(prompt, scores, pairs) or ("raters_disagree" if number in combined.disagree else "")
        if reason:
            refused.append(Refusal(prompt.file, prompt.row, reason))
            continue
        answers = list(_rows(prompt, group, verdicts, combined))
        lines.append(_pair_row(prompt, answers) if pairs else _answers_row(prompt, answers))
        margins.append(float(scores[0] - scores[1]) if pairs else float(np.nanmax(scores) - np.nanmin(scores)))
        against += pairs and margins[-1] < 0
    storage.write_bytes(file, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode())
    quarantine = Quarantine.of(refused)
    quarantine.write(aside)
    storage.write_bytes(picture, draw_ratings(ratings, margins, pairs=pairs))
    return RateReport(
        origin=read.origin,
        file=file,
        picture=picture,
        quarantine=aside if refused else "",
        pairs=pairs,
        prompts=len(read.prompts) + len(read.refused),
        kept=len(lines),
        answers=len(combined.scores),
        margins=margins,
        against=against,
        quarantined=quarantine.counts,
        raters={name: _summary(verdicts[name], ratings[name], groups) for name in ratings},
        agreements={
            (one, other): agreement(ratings[one], ratings[other], groups) for one, other in combinations(ratings, 2)
        },
    )


def _why_not(prompt: AnsweredPrompt, scores: Ratings, pairs: bool) -> str:
    if pairs:  # a tie of two is a pair: a hard one
        return "" if np.isfinite(scores).all() else "too_few_rated_answers"
    return why_no_pair(prompt.drawn, [None if math.isnan(score) else score for score in scores.tolist()])


def _rows(
    prompt: AnsweredPrompt, group: slice, verdicts: Mapping[str, Sequence[JudgeVerdict]], combined: CombinedRatings
) -> Iterator[dict[str, Any]]:
    for number, answer in zip(range(group.start, group.stop), prompt.answers, strict=True):
        unreadable = {name: of_one[number].reason for name, of_one in verdicts.items() if of_one[number].reason}
        widths = combined.widths
        yield {
            "text": answer.text,
            "score": _or_none(combined.scores[number]),
            "ratings": {name: of_one[number].value for name, of_one in verdicts.items()},
            **({} if widths is None else {"width": _or_none(widths[number])}),
            **({"unreadable": unreadable} if unreadable else {}),
            "model": answer.model,
        }


def _answers_row(prompt: AnsweredPrompt, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"prompt_id": prompt.prompt_id, "prompt": prompt.messages, **prompt.template.columns, "answers": answers}


def _pair_row(prompt: AnsweredPrompt, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Keep the order of the source, however it is rated."""
    chosen, rejected = answers
    sides = {"chosen": chosen, "rejected": rejected}
    return {
        "prompt": prompt.messages,
        **prompt.template.columns,
        **{side: answer["text"] for side, answer in sides.items()},
        **{f"score_{side}": answer["score"] for side, answer in sides.items()},
        **{f"ratings_{side}": answer["ratings"] for side, answer in sides.items()},
        **({f"width_{side}": answer["width"] for side, answer in sides.items()} if "width" in chosen else {}),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _summary(verdicts: Sequence[JudgeVerdict], ratings: Ratings, groups: Groups) -> RaterSummary:
    rated = ratings[np.isfinite(ratings)]
    alike, compared = ties(ratings, groups)
    return RaterSummary(
        rated=len(rated),
        mean=float(rated.mean()) if len(rated) else math.nan,
        spread=float(rated.std()) if len(rated) else math.nan,
        lowest=float(rated.min()) if len(rated) else math.nan,
        highest=float(rated.max()) if len(rated) else math.nan,
        ties=alike,
        compared=compared,
        missing=dict(Counter(verdict.reason for verdict in verdicts if verdict.reason).most_common()),
    )
