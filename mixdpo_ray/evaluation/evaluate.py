"""Sample what each arm answers, have it judged, and tell the scores: all of it kept, so that nothing is done twice.

Answers lie under their keys (sampling/) and verdicts under their questions (judging/), so the same command continues
after a kill, and another arm, benchmark or checkpoint costs what it lacks. Every benchmark asks for the verdicts of all
arms in one go, and scores them together, as some fits are joint.
"""

from __future__ import annotations

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.command import before_ray
from mixdpo_ray.cluster.preflight import ready_cluster
from mixdpo_ray.evaluation.answers import drawn_rows
from mixdpo_ray.evaluation.downstream import downstream, refuse_impossible_tasks
from mixdpo_ray.evaluation.dry_run import EvaluationEstimate, estimate_evaluation
from mixdpo_ray.evaluation.inputs import EvaluationInputs
from mixdpo_ray.evaluation.judged import judge_answers
from mixdpo_ray.evaluation.output import EvaluateReport, evaluation_folder, write_evaluation, write_interchange
from mixdpo_ray.evaluation.results import EvaluatedBenchmark, EvaluationResults, JudgingCost
from mixdpo_ray.evaluation.scored import score_arms
from mixdpo_ray.judges.judge import ChatJudge, open_judge
from mixdpo_ray.recipe.judge import PriceSettings
from mixdpo_ray.recipe.recipe import Recipe


def evaluate(recipe: Recipe, *, dry_run: bool = False) -> EvaluateReport | EvaluationEstimate:
    """Judge the answers that the recipe's `answers.evaluate` asks for; or tell what that would take."""
    if not dry_run:
        refuse_impossible_tasks(recipe)
    inputs = EvaluationInputs.read(recipe, asks=not dry_run)
    if dry_run and not inputs.needs_ray:
        return estimate_evaluation(inputs)
    if not dry_run:
        inputs.check_arms()
    before_ray("evaluate", *([recipe] if inputs.needs_ray else []))
    with ready_cluster(recipe, cpus=_cpus(inputs), trains=False):
        inputs.read_held_out()
        if dry_run:
            return estimate_evaluation(inputs)
        with open_judge(recipe) as judge:
            return _evaluate(recipe, inputs, judge)


def _cpus(inputs: EvaluationInputs) -> int:
    """So many as the largest of the arms needs, which are loaded one after another, or a judge of this cluster's."""
    cluster, judge = inputs.recipe.cluster, inputs.recipe.answers.judge
    workers = cluster.reference_workers or cluster.fewest_workers
    engines = [engine.cpus for sampler in inputs.samplers.values() for engine in sampler.engines.values()]
    return max(2, *engines, ((judge and judge.workers) or workers) + 1)


def _evaluate(recipe: Recipe, inputs: EvaluationInputs, judge: ChatJudge) -> EvaluateReport:
    folder = evaluation_folder(recipe)
    answers = {}
    for name in inputs.benchmarks:
        for arm in inputs.arms:
            say(f"{name}: answers of {arm.name}")
            answers[name, arm.name] = inputs.answers(name, arm, drawn_rows)
    found: list[EvaluatedBenchmark] = []
    for name, benchmark in inputs.benchmarks.items():
        every = {arm.name: answers[name, arm.name] for arm in inputs.arms}
        prompts, told, compared = inputs.compared(name, every)
        judged = judge_answers(
            benchmark, prompts.prompts, {arm: one.texts for arm, one in told.items()}, judge, title=name
        )
        write_interchange(folder, name, benchmark, judged, every, judge.name)
        say(f"{name}: drawing prompts anew for the intervals")
        found.append(score_arms(name, benchmark, judged, told, compared, _prices(recipe)))
        results = _results(recipe, judge, tuple(found))
        storage.make_folder(folder)
        write_evaluation(results, folder)
    if tasks := downstream(recipe, inputs.arms):
        results = _results(recipe, judge, (*found, *tasks))
        write_evaluation(results, folder)
    return EvaluateReport(results, folder)


def _results(recipe: Recipe, judge: ChatJudge, found: tuple[EvaluatedBenchmark, ...]) -> EvaluationResults:
    progress, prices = judge.progress, _prices(recipe)
    spent = progress.spent
    cost = JudgingCost(
        spent.calls or progress.answered + progress.failed, spent.input_tokens, spent.output_tokens, spent.price(prices)
    )
    priced = bool(prices.input or prices.output)
    return EvaluationResults(recipe.output.name, judge.name, found, cost, progress.cached, currency_known=priced)


def _prices(recipe: Recipe) -> PriceSettings:
    judge = recipe.answers.judge
    served = judge.http if judge is not None and judge.engine == "http" else None
    return PriceSettings() if served is None else served.prices
