"""Data set formats by name: how a source's rows become candidate pairs.

To add one: a function, its key in FORMATS, and a sample row in tests/pairs/samples.py. A function takes values as it
finds them (checking.py judges them) and gives, for each pair that a row should hold, a candidate or why there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.pairs.helpsteer import (
    helpsteer2,
    helpsteer2_answers,
    helpsteer2_preference,
    helpsteer3_preference,
)
from mixdpo_ray.pairs.pair import Candidate, Found, Row, answered, user
from mixdpo_ray.pairs.pairing import Answers, PairSettings, paired
from mixdpo_ray.pairs.rated_answers import answers_with_ratings, rated_answers
from mixdpo_ray.pairs.ultrafeedback import (
    simpo_answers,
    simpo_ultrafeedback,
    ultrafeedback,
    ultrafeedback_answers,
    ultrafeedback_binarized,
)


@dataclass(frozen=True)
class Format:
    columns: tuple[str, ...]  # a source that has them is of this format, unless one that asks for more columns fits too
    candidates: Callable[..., Found]  # of one row, or of all rows of a group
    about: str
    group_by: str | None = None  # the column whose equal values make rows one group, wherever they lie in the source
    optional: tuple[str, ...] = ()  # columns that are read where they are there
    rated: bool = True  # whether its own columns carry ratings; otherwise margin or two scores must come beside them
    mixed_scales: bool = False  # whether its rows are rated on different scales
    answers: Callable[..., Answers | str] | None = None  # where it holds several to a prompt, for data.pair.rule

    def pairs(self, rows: Sequence[Row], settings: PairSettings) -> Found:
        """The pairs of one row, or of all rows of a group."""
        if settings.rule is None or self.answers is None:
            return self.candidates(*rows)
        return [paired(self.answers(*rows), settings)]


def plain(row: Row) -> Found:
    """Answers are texts, messages that follow the prompt, or whole conversations (which need no prompt column)."""
    prompt = row.get("prompt")
    source = row.get("source")
    return [
        Candidate(
            chosen=_conversation(prompt, row.get("chosen")),
            rejected=_conversation(prompt, row.get("rejected")),
            source=source if isinstance(source, str) else "plain",
            score_chosen=row.get("score_chosen"),
            score_rejected=row.get("score_rejected"),
            margin=row.get("margin"),
            ratings=(row.get("ratings_chosen"), row.get("ratings_rejected")),
            template=_template(row),
        )
    ]


def _conversation(prompt: Any, answer: Any) -> Any:
    if not isinstance(answer, list):
        return answered(prompt, answer)
    turns = prompt if isinstance(prompt, list) else [user(prompt)]
    whole = prompt is None or answer[: len(turns)] == turns or _begins_with_a_question(answer)
    return answer if whole else [*turns, *answer]


def _begins_with_a_question(turns: list[Any]) -> bool:
    """Whether these are a conversation, and not the turns behind a prompt."""
    return _role(turns[0]) != "assistant" and any(_role(turn) == "user" for turn in turns) if turns else False


def _template(row: Row) -> tuple[Any, Any]:
    """What stands beside the turns for the chat template."""
    return row.get("tools"), row.get("chat_template_kwargs")


def _role(turn: Any) -> Any:
    return turn.get("role") if isinstance(turn, Mapping) else None


DPO_MIX_SCALES = {"capybara": (1.0, 5.0), "intel-orca": (1.0, 10.0), "ultrafeedback": (1.0, 5.0)}


def dpo_mix_7k(row: Row) -> Found:
    """Three data sets in one, rated on different scales; `dataset` says which."""
    dataset = str(row.get("dataset"))
    return [
        Candidate(
            chosen=row.get("chosen"),
            rejected=row.get("rejected"),
            source=dataset,
            score_chosen=row.get("chosen_rating"),
            score_rejected=row.get("rejected_rating"),
            scale=next((scale for name, scale in DPO_MIX_SCALES.items() if name in dataset), None),
        )
    ]


def hh_rlhf(row: Row) -> Found:
    """Whole transcripts as texts, and no ratings: a margin must come from a column of your own."""
    return [
        Candidate(
            chosen=_transcript(row.get("chosen")),
            rejected=_transcript(row.get("rejected")),
            source="hh_rlhf",
            score_chosen=row.get("score_chosen"),
            score_rejected=row.get("score_rejected"),
            margin=row.get("margin"),
        )
    ]


def _transcript(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    before, *rest = re.split(r"\n\n(Human|Assistant):", text)
    if before.strip():
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[rest[i]], "content": rest[i + 1].strip()} for i in range(0, len(rest), 2)]


RATINGS = ("margin", "score_chosen", "score_rejected")
TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")

FORMATS: dict[str, Format] = {
    "plain": Format(
        ("chosen", "rejected"),
        plain,
        "prompt, chosen, rejected, and a margin or two scores",
        optional=("prompt", "source", *RATINGS, "ratings_chosen", "ratings_rejected", *TEMPLATE_COLUMNS),
        rated=False,
    ),
    "ultrafeedback_binarized": Format(
        ("prompt_id", "chosen", "rejected", "score_chosen", "score_rejected"),
        ultrafeedback_binarized,
        "HuggingFaceH4/ultrafeedback_binarized",
    ),
    "dpo_mix_7k": Format(
        ("dataset", "chosen", "rejected", "chosen_rating", "rejected_rating"),
        dpo_mix_7k,
        "argilla/dpo-mix-7k",
        mixed_scales=True,
    ),
    "simpo_ultrafeedback": Format(
        ("all_generated_responses", "all_rm_scores", "chosen", "rejected"),
        simpo_ultrafeedback,
        "princeton-nlp/llama3-ultrafeedback and its relatives",
        answers=simpo_answers,
    ),
    "ultrafeedback": Format(
        ("instruction", "completions"),
        ultrafeedback,
        "openbmb/UltraFeedback, binarised here",
        answers=ultrafeedback_answers,
    ),
    "helpsteer2": Format(
        ("prompt", "response", "helpfulness"),
        helpsteer2,
        "nvidia/HelpSteer2, rated responses",
        group_by="prompt",
        answers=helpsteer2_answers,
    ),
    "helpsteer2_preference": Format(
        ("prompt", "response_1", "response_2", "preference_strength"),
        helpsteer2_preference,
        "nvidia/HelpSteer2, data_dir: preference",
    ),
    "helpsteer3_preference": Format(
        ("context", "response1", "response2", "overall_preference"),
        helpsteer3_preference,
        "nvidia/HelpSteer3, config: preference",
        optional=("individual_preference",),
    ),
    "rated_answers": Format(
        ("prompt", "answers"),
        rated_answers,
        "answers that jobs/rate.py has rated",
        optional=("source", *TEMPLATE_COLUMNS),
        answers=answers_with_ratings,
    ),
    "hh_rlhf": Format(
        ("chosen", "rejected"), hh_rlhf, "Anthropic/hh-rlhf, once it has margins", optional=RATINGS, rated=False
    ),
}


def map_columns(row: Row, columns: Mapping[str, str]) -> Row:
    """Our names beside the source's; where both have a name, the mapping's column counts."""
    if not columns:
        return row
    return {**row, **{ours: row.get(theirs) for ours, theirs in columns.items()}}


def idle_rule(name: str, pair: PairSettings) -> str:
    """Why a rule for pairing would never be asked, or nothing."""
    if pair.rule is None or FORMATS[name].answers is not None:
        return ""
    several = ", ".join(other for other, format in FORMATS.items() if format.answers is not None)
    return (
        f"data.pair.rule {pair.rule} chooses among several answers, and format {name} holds pairs: leave it out "
        f"(formats with several answers: {several})"
    )
