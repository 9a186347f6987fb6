"""What an evaluation leaves: its results, a table, and the files that the benchmarks' own tools read.

<storage>/evaluations/<name>/results.json, table.md, page.html, evaluation.png
<storage>/evaluations/<name>/<benchmark>/     AlpacaEval and own: ARM/outputs.json; Arena-Hard: model_answer/ARM.jsonl
                                              and model_judgment/JUDGE/ARM.jsonl; MT-Bench: model_answer/ARM.jsonl
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixdpo_ray import storage
from mixdpo_ray.benchmarks.arena_hard import DEGREES, ArenaHard
from mixdpo_ray.benchmarks.benchmark import Benchmark, BenchmarkPrompt, Game
from mixdpo_ray.benchmarks.interchange import alpaca_outputs, arena_answers, arena_judgements, mt_bench_answers
from mixdpo_ray.benchmarks.mt_bench import MTBench
from mixdpo_ray.benchmarks.pairwise import BOTH_ORDERS
from mixdpo_ray.evaluation.judged import AnswerTexts, JudgedAnswers
from mixdpo_ray.evaluation.page import evaluation_page
from mixdpo_ray.evaluation.picture import evaluation_picture
from mixdpo_ray.evaluation.results import EVALUATION_FILE, LM_EVAL_KIND, EvaluationResults
from mixdpo_ray.evaluation.scored import ArmAnswers
from mixdpo_ray.evaluation.table import results_text
from mixdpo_ray.recipe.recipe import Recipe

EVALUATION_TABLE, EVALUATION_PAGE, EVALUATION_PICTURE = "table.md", "page.html", "evaluation.png"
_MARKS = {(verdict.value, verdict.battles): mark for mark, verdict in DEGREES.items()}


@dataclass(frozen=True)
class EvaluateReport:
    results: EvaluationResults
    folder: str

    @property
    def with_answers(self) -> list[str]:
        return [one.name for one in self.results.benchmarks if not one.kind.startswith(LM_EVAL_KIND)]

    def describe(self) -> str:
        return "\n".join(
            [
                results_text(self.results),
                "",
                f"  results  {self.folder}/{EVALUATION_FILE}",
                f"  table    {self.folder}/{EVALUATION_TABLE}",
                f"  page     {self.folder}/{EVALUATION_PAGE}, {EVALUATION_PICTURE}",
                f"  answers  {self.folder}/{{{', '.join(self.with_answers)}}}",
            ]
        )


def evaluation_folder(recipe: Recipe) -> str:
    return storage.join(recipe.output.storage_path, "evaluations", recipe.output.name)


def write_evaluation(results: EvaluationResults, folder: str) -> EvaluateReport:
    storage.write_bytes(storage.join(folder, EVALUATION_FILE), results.to_json())
    storage.write_bytes(storage.join(folder, EVALUATION_TABLE), f"{results_text(results)}\n".encode())
    storage.write_bytes(storage.join(folder, EVALUATION_PAGE), evaluation_page(results))
    storage.write_bytes(storage.join(folder, EVALUATION_PICTURE), evaluation_picture(results))
    return EvaluateReport(results, folder)


def write_interchange(
    folder: str, name: str, benchmark: Benchmark, judged: JudgedAnswers, answers: Mapping[str, ArmAnswers], judge: str
) -> None:
    """Answers of every arm, and judgements where the benchmark has a format of them."""
    prompts = list(next(iter(judged.arms.values())).prompts.values())
    for arm, told in answers.items():
        files = _answer_file(arm, benchmark, prompts, told.texts)
        if isinstance(benchmark, ArenaHard):
            files |= _judgement_file(arm, benchmark, judged, judge)
        for path, content in files.items():
            storage.write_bytes(storage.join(folder, name, path), content)


def file_name(name: str) -> str:
    """An arm's or a judge's name as that of a file; two names never share one."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _answer_file(
    arm: str, benchmark: Benchmark, prompts: Sequence[BenchmarkPrompt], texts: AnswerTexts
) -> dict[str, bytes]:
    if isinstance(benchmark, MTBench):
        return {f"model_answer/{file_name(arm)}.jsonl": mt_bench_answers(arm, texts)}
    if isinstance(benchmark, ArenaHard):
        return {f"model_answer/{file_name(arm)}.jsonl": arena_answers(arm, prompts, texts)}
    return {f"{file_name(arm)}/outputs.json": alpaca_outputs(arm, prompts, texts)}


def _judgement_file(arm: str, benchmark: ArenaHard, judged: JudgedAnswers, judge: str) -> dict[str, bytes]:
    told = judged.arms[arm]
    games = {item: [_game(arm, item, game, judged) for game in BOTH_ORDERS] for item in told.answers}
    content = arena_judgements(arm, judge, type(benchmark).baselines, list(told.prompts.values()), games)
    return {f"model_judgment/{file_name(judge)}/{file_name(arm)}.jsonl": content}


def _game(arm: str, item: str, game: Game, judged: JudgedAnswers) -> tuple[str | None, str]:
    verdict, reply = judged.arms[arm].verdict(item, game), judged.replies.get((arm, item, game))
    return _MARKS.get((verdict.value, verdict.battles)), reply.text if reply else ""
