"""One row (for grouped formats: one group of rows) of every format, and the candidate pair that it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mixdpo_ray.pairs.settings import DataSettings, SourceSettings

QUESTION, GOOD, BAD = "What do bees make?", "Honey and wax.", "Cars."


def data(**settings: Any) -> DataSettings:
    source = settings.pop("source", SourceSettings(path="unused"))
    return DataSettings(source=source, **{"margin_scale": "none", **settings})


def conversation(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def completion(text: str, score: float | None, *ratings: str) -> dict[str, Any]:
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    rated = zip(aspects, ratings, strict=False)
    annotations = {aspect: {"Rating": rating, "Rationale": "-"} for aspect, rating in rated}
    return {"model": "m", "response": text, "annotations": annotations, "overall_score": score, "critique": "-"}


@dataclass(frozen=True)
class Sample:
    rows: list[dict[str, Any]]
    margin: float
    prompt: tuple[str, ...] = (QUESTION,)
    chosen: str = GOOD
    rejected: str = BAD


SAMPLES: dict[str, Sample] = {
    "plain": Sample([{"prompt": QUESTION, "chosen": GOOD, "rejected": BAD, "margin": 2.5}], 2.5),
    "ultrafeedback_binarized": Sample(
        [
            {
                "prompt": QUESTION,
                "prompt_id": "p",
                "chosen": conversation(QUESTION, GOOD),
                "rejected": conversation(QUESTION, BAD),
                "messages": conversation(QUESTION, GOOD),
                "score_chosen": 8.5,
                "score_rejected": 4.0,
            }
        ],
        4.5,
    ),
    "dpo_mix_7k": Sample(
        [
            {
                "dataset": "argilla/distilabel-capybara-dpo-7k-binarized",
                "chosen": conversation("Hello", "Hi!", QUESTION, GOOD),
                "rejected": conversation("Hello", "Hi!", QUESTION, BAD),
                "chosen_rating": 5.0,
                "rejected_rating": 2.0,
            }
        ],
        3.0,
        prompt=("Hello", "Hi!", QUESTION),
    ),
    "simpo_ultrafeedback": Sample(
        [
            {
                "prompt_id": "p",
                "prompt": QUESTION,
                "all_generated_responses": ["Wax.", GOOD, "Honey.", BAD, "Buzz."],
                "all_rm_scores": [0.125, 0.25, 0.75, 0.0625, 0.03],
                "chosen": conversation(QUESTION, GOOD),
                "rejected": conversation(QUESTION, BAD),
            }
        ],
        0.1875,  # 0.25 - 0.0625: of the pair's own texts, although another answer scored 0.75
    ),
    "ultrafeedback": Sample(
        [
            {
                "source": "evol_instruct",
                "instruction": QUESTION,
                "models": ["a", "b"],
                "completions": [completion(BAD, 3.5, "2", "3", "N/A", "2"), completion(GOOD, 8.0, "4", "5", "4", "4")],
            }
        ],
        4.5,
    ),
    "helpsteer2": Sample(
        [
            {"prompt": QUESTION, "response": BAD, "helpfulness": 1, "correctness": 1, "verbosity": 0},
            {"prompt": QUESTION, "response": GOOD, "helpfulness": 4, "correctness": 4, "verbosity": 1},
        ],
        3.0,
    ),
    "helpsteer2_preference": Sample(
        [
            {
                "split": "train",
                "prompt": f"Hello\n\n<extra_id_1>Assistant\nHi!\n\n<extra_id_1>User\n{QUESTION}",
                "response_1": BAD,
                "response_2": GOOD,
                "preference_strength": 2,
            }
        ],
        2.0,
        prompt=("Hello", "Hi!", QUESTION),
    ),
    "helpsteer3_preference": Sample(
        [
            {
                "domain": "general",
                "language": "english",
                "context": conversation(QUESTION),
                "response1": GOOD,
                "response2": BAD,
                "overall_preference": -3,
                "individual_preference": [{"score": -3, "reasoning": "-"}],
            }
        ],
        3.0,
    ),
    "rated_answers": Sample(
        [
            {
                "prompt": conversation("Hello", "Hi!", QUESTION),
                "answers": [{"text": "Wax.", "score": 3.5}, {"text": BAD, "score": 1.0}, {"text": GOOD, "score": 8.0}],
            }
        ],
        7.0,
        prompt=("Hello", "Hi!", QUESTION),
    ),
    "hh_rlhf": Sample(
        [
            {
                "chosen": f"\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: {QUESTION}\n\nAssistant: {GOOD}",
                "rejected": f"\n\nHuman: Hello\n\nAssistant: Hi!\n\nHuman: {QUESTION}\n\nAssistant: {BAD}",
                "margin": 1.5,
            }
        ],
        1.5,
        prompt=("Hello", "Hi!", QUESTION),
    ),
}
