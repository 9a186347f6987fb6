"""Rounds of sample -> rate -> pairs -> train, each judged over the one before, until one is no better or all are done.

A round is done, and never done again, once its round.json is there, which is written last. Each of its steps keeps what
it has made by content or by key and continues there: the same command goes on wherever the loop was killed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.command import before_ray
from mixdpo_ray.cluster.preflight import ready_cluster
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.iteration.output import IterateOutput
from mixdpo_ray.iteration.results import RatedRound, RoundPairs, RoundResult
from mixdpo_ray.iteration.round_judge import judge_round, read_answers
from mixdpo_ray.iteration.round_prompts import RoundPrompts, take_prompts
from mixdpo_ray.iteration.round_recipes import (
    check_iteration,
    iteration_folder,
    judged_recipe,
    model_before,
    round_folder,
    run_of_round,
    sampling_recipe,
    training_recipe,
)
from mixdpo_ray.judges.judge import ChatJudge, open_judge
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.rating.rate import rate_answers
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.runs.job import delete_and_say
from mixdpo_ray.runs.summary import ACCURACY
from mixdpo_ray.runs.train import train
from mixdpo_ray.sampling.model import weights_identity
from mixdpo_ray.sampling.sample import sample
from mixdpo_ray.tables.held_out_sets import MAIN, held_out_sets
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.model_files import refuse_missing_folder, with_absolute_paths

QUARTILES = (0.25, 0.5, 0.75)
RATED_ROUND = "rated.json"  # in the folder of a round


def iterate(recipe: Recipe) -> IterateOutput:
    """Go through the rounds that are not done yet. What cannot work is refused before Ray starts."""
    check_iteration(recipe)
    refuse_missing_folder("model.path", recipe.model.path)
    output = IterateOutput(recipe, iteration_folder(recipe))
    if not recipe.output.fresh:
        output.refuse_other_settings()
        _refuse_other_models(recipe, output.rounds)
        if output.ended:
            output.write()
            return output
    prompts = take_prompts(recipe)
    before_ray("iterate")
    with ready_cluster(recipe, cpus=_cpus(recipe)), RunRecord(output.folder).locked():
        if recipe.output.fresh:
            delete_and_say(output.folder)
            output.rounds.clear()
        output.claim()
        prompts.write(recipe)
        with open_judge(recipe) as judge:
            while not output.ended:
                number = len(output.rounds) + 1
                say(f"iterate: round {number} of {recipe.answers.iterate.rounds}")
                output.add(_round(recipe, number, prompts, judge))
                storage.delete(RunRecord(run_of_round(recipe, number)).checkpoints)  # its model is exported
    return output


def _round(recipe: Recipe, number: int, prompts: RoundPrompts, judge: ChatJudge) -> RoundResult:
    """The one judge's budget is that of all rounds, ratings and verdicts together."""
    began = time.monotonic()
    rated = _rated_answers(recipe, number, prompts, judge)
    training = training_recipe(recipe, number, rated.file)
    table = prepared_table(training)
    ran = train(training).summary
    answers = {name: read_answers(sample(judged_recipe(recipe, which)).file) for name, which in _compared(number)}
    others = {name: texts for name, texts in answers.items() if name != "mine"}
    judged = judge_round(recipe, judge, prompts.judged, answers["mine"], others)
    return RoundResult(
        number,
        _weights(recipe, number),
        RunRecord(run_of_round(recipe, number)).model,
        _pairs_of(rated, table),
        judged["last"],
        judged.get("first", judged["last"]),
        _mean_length(answers["mine"]),
        _mean_length(answers.get("first", answers["last"])),
        judge.name,
        ran["steps"],
        ran["eval_after"].get(ACCURACY),
        round(time.monotonic() - began, 1),
    )


def _compared(number: int) -> list[tuple[str, int]]:
    """Whose answers to the judged prompts are compared, by the round that left the model."""
    return [("mine", number), ("last", number - 1), *([("first", 0)] if number > 1 else [])]


def _rated_answers(recipe: Recipe, number: int, prompts: RoundPrompts, judge: ChatJudge) -> RatedRound:
    """Those that the round's training began with, or else drawn and rated now."""
    asked, each = sampling_recipe(recipe, number), recipe.answers.iterate.prompts_each
    ids = [prompt.prompt_id for prompt in prompts.rounds[(number - 1) * each : number * each]]
    answers = asked.answers.model_dump(mode="json", exclude={"evaluate", "iterate"})
    name = fingerprint([asked.training_identity(), answers, _weights(recipe, number), ids])
    path = storage.join(round_folder(recipe, number), RATED_ROUND)
    if (known := RatedRound.read(path, name)) is not None:
        return known
    sampled = sample(asked)
    rated = rate_answers(asked, judge=judge)
    means = {name: rater.mean for name, rater in rated.raters.items()}
    done = RatedRound(name, rated.file, sampled.prompts, sampled.answers, means, dict(rated.quarantined))
    storage.write_bytes(path, done.to_json())
    return done


def _pairs_of(rated: RatedRound, table: PreparedTable) -> RoundPairs:
    margins, refused = table.index("train").margin, Counter(rated.quarantined)
    refused.update(table.manifest.quarantined)
    return RoundPairs(
        rated.prompts,
        rated.answers,
        rated.ratings,
        len(margins),
        len(held_out_sets(table)[MAIN]),
        int(np.count_nonzero(margins == 0)),
        tuple(np.quantile(margins, QUARTILES).tolist()),
        dict(refused),
    )


def _mean_length(answers: Mapping[str, str]) -> float:
    return sum(map(len, answers.values())) / max(1, len(answers))


def _weights(recipe: Recipe, number: int) -> str:
    """A name for those of the model that a round begins with."""
    model = recipe.model.model_copy(update={"path": model_before(recipe, number)})
    return weights_identity(with_absolute_paths(model))


def _refuse_other_models(recipe: Recipe, rounds: Sequence[RoundResult]) -> None:
    """A round that is done stays done, unless the model that it began with has become another one."""
    for one in rounds:
        if _weights(recipe, one.number) != one.begins_with:
            raise RunConflictError(
                f"{model_before(recipe, one.number)} is not the model any more that round {one.number} began with: "
                "choose another output.name, or output.fresh=true to start over"
            )


def _cpus(recipe: Recipe) -> int:
    """What sampling wants of a Ray that is started here; training says so itself."""
    cluster = recipe.cluster
    return (recipe.answers.sample.workers or cluster.reference_workers or cluster.fewest_workers) + 1
