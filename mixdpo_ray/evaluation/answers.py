"""The answers of an arm to a benchmark's prompts: read from its file, or drawn turn by turn and kept by their keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mixdpo_ray.benchmarks.benchmark import BenchmarkPrompt
from mixdpo_ray.benchmarks.interchange import read_alpaca_outputs, read_arena_answers, read_turns
from mixdpo_ray.errors import EvaluationError, MixDPOError
from mixdpo_ray.evaluation.arms import EvaluationArm
from mixdpo_ray.evaluation.judged import AnswerTexts
from mixdpo_ray.evaluation.prompts import BenchmarkPrompts
from mixdpo_ray.evaluation.scored import ArmAnswers
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.engine import Engine
from mixdpo_ray.sampling.model import SETTING
from mixdpo_ray.sampling.prompts import AskedPrompt
from mixdpo_ray.sampling.sample import ENGINES, complete_table, known_table
from mixdpo_ray.tables.answer_table import AnswerTable
from mixdpo_ray.training.decoding import DecodingSettings

# what the benchmarks' own scripts do; none of `own`
GREEDY = {
    "alpaca_eval_2": DecodingSettings(temperature=0, max_new_tokens=2048),
    "arena_hard_v0_1": DecodingSettings(temperature=0, max_new_tokens=4096),
    "arena_hard_v2": DecodingSettings(temperature=0, max_new_tokens=4096),
}
TURN_TOKENS = 1024
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}  # of MT-Bench; 0 elsewhere
AnswerRow = Mapping[str, Any]  # of an answer table
AnswerRows = Callable[
    [Recipe, Engine, Sequence[AskedPrompt]], dict[str, AnswerRow]
]  # answers that are there, by prompt_id


def decoding_of(recipe: Recipe, benchmark: str, prompt: BenchmarkPrompt) -> DecodingSettings:
    given = recipe.answers.evaluate.decoding.get(benchmark) or GREEDY.get(benchmark)
    if given is not None:
        return given
    if benchmark == "mt_bench":
        return DecodingSettings(temperature=TEMPERATURES.get(prompt.category, 0), max_new_tokens=TURN_TOKENS)
    return recipe.answers.sample.decoding


@dataclass
class ArmSampler:
    """One arm with its engines, which are made once for each way of decoding."""

    recipe: Recipe
    arm: EvaluationArm
    engines: dict[DecodingSettings, Engine] = field(default_factory=dict)

    def engine(self, decoding: DecodingSettings) -> Engine:
        if decoding not in self.engines:
            recipe = self.arm.sampling(self.recipe, decoding)
            try:
                self.engines[decoding] = ENGINES[recipe.answers.sample.engine](recipe)
            except MixDPOError as error:
                raise type(error)(str(error).replace(SETTING, f"answers.evaluate.arms.{self.arm.name}")) from None
        return self.engines[decoding]

    def answers(self, prompts: BenchmarkPrompts, rows: AnswerRows) -> ArmAnswers:
        """Turn after turn; an item that lacks one is unanswered. `rows`: drawn_rows, or known_rows without Ray."""
        texts: dict[str, tuple[str, ...]] = {prompt.item: () for prompt in prompts.prompts}
        unanswered: Counter[str] = Counter()
        finished: list[AnswerRow] = []
        for turn in range(max(len(prompt.turns) for prompt in prompts.prompts)):
            due = [prompt for prompt in prompts.prompts if len(prompt.turns) > turn and prompt.item in texts]
            for decoding in dict.fromkeys(decoding_of(self.recipe, prompts.benchmark, prompt) for prompt in due):
                group = [prompt for prompt in due if decoding_of(self.recipe, prompts.benchmark, prompt) == decoding]
                asked = {
                    prompt.item: AskedPrompt(
                        prompts.conversation(prompt, texts[prompt.item]), prompts.benchmark, number
                    )
                    for number, prompt in enumerate(group)
                }
                found, refused = self._rows(decoding, list(asked.values()), rows)
                for item, prompt in asked.items():
                    if row := found.get(prompt.prompt_id):
                        texts[item] = (*texts[item], row["answer"])
                        finished.append(row)
                    else:
                        unanswered[refused.get(prompt.prompt_id, "no_answer")] += 1
                        del texts[item]
        return ArmAnswers(
            self.model,
            texts,
            dict(unanswered),
            empty=sum(not row["answer"].strip() for row in finished),
            cut=sum(row["finish"] == "length" for row in finished),
        )

    @property
    def model(self) -> str:
        return next(iter(self.engines.values())).model if self.engines else self.arm.model or self.recipe.model.path

    def _rows(
        self, decoding: DecodingSettings, prompts: Sequence[AskedPrompt], rows: AnswerRows
    ) -> tuple[dict[str, AnswerRow], dict[str, str]]:
        """Answers by prompt_id, and why prompts that the engine refuses have none."""
        engine = self.engine(decoding)
        unique = list({prompt.prompt_id: prompt for prompt in prompts}.values())
        reasons = {(refusal.file, refusal.row): refusal.reason for refusal in engine.refused(unique)}
        taken = [prompt for prompt in unique if (prompt.file, prompt.row) not in reasons]
        refused = {one.prompt_id: reasons[one.file, one.row] for one in unique if (one.file, one.row) in reasons}
        return rows(self.arm.sampling(self.recipe, decoding), engine, taken) if taken else {}, refused


def drawn_rows(recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> dict[str, AnswerRow]:
    """All of them, drawn where they were not there. Ray is connected."""
    with complete_table(recipe, engine, prompts) as (table, _):
        return _rows_of(table, prompts)


def known_rows(recipe: Recipe, engine: Engine, prompts: Sequence[AskedPrompt]) -> dict[str, AnswerRow]:
    """Those that were drawn before."""
    table = known_table(recipe, engine)
    return {} if table is None else _rows_of(table, prompts)


def _rows_of(table: AnswerTable, prompts: Sequence[AskedPrompt]) -> dict[str, AnswerRow]:
    keys = [(prompt.prompt_id, 0) for prompt in prompts]
    there = table.keys
    found = table.rows([key for key in keys if key in there])
    return {row["prompt_id"]: row for rows in found for row in rows.drop_columns("token_ids").to_pylist()}


def answers_in_file(arm: EvaluationArm, path: str, prompts: BenchmarkPrompts) -> ArmAnswers:
    """What an arm answered elsewhere, in the benchmark's interchange format."""
    texts = _read_answers(arm.name, path, prompts)
    items = {prompt.item: len(prompt.turns) for prompt in prompts.prompts}
    kept = {item: turns for item, turns in texts.items() if item in items and len(turns) >= items[item]}
    if not kept:
        raise EvaluationError(f"{path}: no answer to a prompt of {prompts.benchmark}; give answers to its prompts")
    lacking = len(items) - len(kept)
    empty = sum(not any(turn.strip() for turn in turns) for turns in kept.values())
    return ArmAnswers(path, kept, {"not_in_file": lacking} if lacking else {}, empty)


def _read_answers(name: str, path: str, prompts: BenchmarkPrompts) -> AnswerTexts:
    if prompts.benchmark == "mt_bench":
        return read_turns(path)
    if not prompts.benchmark.startswith("arena_hard"):
        return read_alpaca_outputs(path, prompts.every)
    models = read_arena_answers(path)
    if len(models) > 1 and name not in models:
        raise EvaluationError(f"{path}: answers of {', '.join(models)}: name the arm as one of them, or keep one")
    answers = models[name] if name in models else next(iter(models.values()))
    return {item: (text,) for item, text in answers.items()}
