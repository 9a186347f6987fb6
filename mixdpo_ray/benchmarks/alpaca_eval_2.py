"""AlpacaEval 2: 805 prompts, a judge's preference over GPT-4 Turbo's answers, with length taken out.

The judge names the better answer by one token, `m` (shown first) or `M`, and the preference is read from the
log-probs of both. The win rate is its mean; the length-controlled one is that of length_control.py. Both orders are
judged unless the official order is asked for: its judge prefers the second answer by 10 to 20 points.
"""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt, Game, JudgedArm, JudgeQuestion, JudgeSampling, Template
from mixdpo_ray.benchmarks.length_control import (
    ArmLengths,
    Calibration,
    length_controlled,
    length_controlled_together,
    notes_on_fit,
)
from mixdpo_ray.benchmarks.logistic import FittedWinRate
from mixdpo_ray.benchmarks.pairwise import BOTH_ORDERS, PairwiseBenchmark
from mixdpo_ray.benchmarks.resampling import BenchmarkScore, Ratio, Statistic
from mixdpo_ray.benchmarks.rows import field_of, read_json_rows, read_text
from mixdpo_ray.benchmarks.templates import filled_messages, messages_of, require_fields
from mixdpo_ray.benchmarks.verdict import JudgeReply, JudgeVerdict
from mixdpo_ray.errors import EvaluationError

FIRST, SECOND = "m", "M"


def preference_verdict(logps: Mapping[str, float] | None) -> JudgeVerdict:
    """P(m) over P(m) + P(M); an identifier that is not among the likeliest tokens has no probability."""
    if logps is None:
        return JudgeVerdict.unreadable("no_log_probs")
    first, second = (logps.get(token, -math.inf) for token in (FIRST, SECOND))
    if math.isnan(first + second) or max(first, second) == -math.inf:
        return JudgeVerdict.unreadable("no_identifier")
    return JudgeVerdict(math.exp(first - float(np.logaddexp(first, second))))


def official_game(instruction: str) -> Game:
    """The one order that the official tool draws: the same for every model."""
    switched = random.Random("is_switched_outputs" + instruction + "0").choices([False, True])[0]
    return "model_first" if switched else "baseline_first"


class AlpacaEval2(PairwiseBenchmark):
    """805 prompts: a judge's preference over the baseline's answers, from log-probs, with length taken out."""

    main: ClassVar[str] = "length_controlled_win_rate"
    judge: ClassVar[JudgeSampling] = JudgeSampling(max_tokens=1, temperature=1.0, top_logprobs=5)

    prompts: str = Field(description="The baseline's outputs as JSON: instruction, output; all of them, in their order")
    template: str = Field(description="The judge's template, in ChatML, with {instruction}, {output_1} and {output_2}")
    difficulty: str | None = Field(None, description="CSV of each prompt's difficulty; goes with calibration")
    calibration: str | None = Field(None, description="CSV of the baseline against its verbose and concise selves")
    order: Literal["both", "official"] = Field("both", description="Judge both orders, or the one officially drawn")
    c: float | None = Field(None, gt=0, description="The fit's inverse penalty; chosen by five folds where not given")

    @model_validator(mode="after")
    def _come_together(self) -> AlpacaEval2:
        if (self.difficulty is None) != (self.calibration is None):
            raise ValueError("difficulty and calibration go together: give both files or neither")
        return self

    def read_prompts(self) -> tuple[BenchmarkPrompt, ...]:
        rows = read_json_rows(self.prompts)
        return tuple(
            BenchmarkPrompt(
                str(index),
                (field_of(row, "instruction", self.prompts),),
                row.get("dataset", ""),
                (field_of(row, "output", self.prompts),),
            )
            for index, row in enumerate(rows)
        )

    def read_template(self) -> Template:
        text = read_text(self.template)
        require_fields(text, ("instruction", "output_1", "output_2"), self.template)
        return {"": messages_of(text, self.template)}

    def games(self, prompt: BenchmarkPrompt) -> tuple[Game, ...]:
        return BOTH_ORDERS if self.order == "both" else (official_game(prompt.turns[0]),)

    def question(
        self, prompt: BenchmarkPrompt, game: Game, answer: tuple[str, ...], template: Template
    ) -> JudgeQuestion:
        first, second = self.shown(prompt, game, answer)
        fields = {"instruction": prompt.turns[0], "output_1": first, "output_2": second}
        settled = JudgeVerdict(0.5) if first == second else None
        return JudgeQuestion(prompt.item, game, filled_messages(template[""], fields), settled)

    def read(self, question: JudgeQuestion, reply: JudgeReply) -> JudgeVerdict:
        return preference_verdict(reply.logps)

    def statistics(self, arms: Mapping[str, JudgedArm]) -> dict[str, dict[str, Statistic]]:
        lengths = {name: self.lengths(arm) for name, arm in arms.items()}
        controlled = self._controlled(lengths)
        return {
            name: {
                "length_controlled_win_rate": controlled[name],
                "win_rate": Ratio.mean(lengths[name].outcome),
                "discrete_win_rate": Ratio.mean({i: _discrete(p) for i, p in lengths[name].outcome.items()}),
                **self.leaning(arm),
            }
            for name, arm in arms.items()
        }

    def notes(self, scores: Mapping[str, BenchmarkScore], statistics: Mapping[str, Statistic]) -> Iterator[str]:
        fitted = statistics["length_controlled_win_rate"]
        calibrated = self.calibration is not None
        if calibrated and isinstance(fitted, FittedWinRate):
            yield f"the length-controlled win rate was fitted with C = {fitted.c:.6g}"
        yield from super().notes(scores, statistics)
        yield from notes_on_fit(scores["win_rate"], scores["length_controlled_win_rate"], calibrated=calibrated)

    def _controlled(self, lengths: Mapping[str, ArmLengths]) -> dict[str, FittedWinRate]:
        if self.difficulty is None or self.calibration is None:
            return length_controlled_together(lengths)
        calibration = read_calibration(self.difficulty, self.calibration)
        if len(calibration.difficulty) != (count := len(read_json_rows(self.prompts))):
            raise EvaluationError(
                f"{self.difficulty}: {len(calibration.difficulty)} difficulties of {count} prompts; they belong to "
                "the whole published set in its order, so give all its prompts or leave difficulty and calibration out"
            )
        return {name: length_controlled(one, calibration, self.c) for name, one in lengths.items()}


def _discrete(outcome: float) -> float:
    return 1.0 if outcome > 0.5 else 0.5 if outcome == 0.5 else 0.0


def read_calibration(difficulty: str, calibration: str) -> Calibration:
    """Both published tables: index and difficulty, and the rows of the baseline against itself."""
    difficulties = filter(None, csv.reader(io.StringIO(read_text(difficulty))))
    rows = list(csv.DictReader(io.StringIO(read_text(calibration))))
    names = ("std_delta_len", "instruction_difficulty", "preference")
    try:
        _, *known = difficulties
        columns = [np.array([float(row[name]) for row in rows]) for name in names]
        found = Calibration({str(int(index)): float(value) for index, value, *_ in known}, *columns)
    except (KeyError, TypeError, ValueError) as error:  # TypeError: a row that was cut short
        raise EvaluationError(f"{difficulty}, {calibration}: {error}; give the published files") from None
    if not rows:
        raise EvaluationError(f"{calibration}: no rows; give the published file")
    return found
