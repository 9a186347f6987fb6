"""The check of models that only score: whether each worker holds a copy, or all of them one in shards, and why."""

from __future__ import annotations

from collections.abc import Iterator

from mixdpo_ray.cluster.actor_pool import pairs_tokens
from mixdpo_ray.cluster.scoring_way import ScoredModel, scored_model, way_of_scoring
from mixdpo_ray.difficulty.resolve import needed_metrics
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import CheckFailed, Unchecked
from mixdpo_ray.recipe.recipe import Recipe


def scoring(examination: Examination) -> str:
    settings, gpu, nodes = examination.recipe.cluster, examination.gpu, examination.nodes
    found = []
    for what, scored in _scored(examination.recipe):
        way = way_of_scoring(scored, settings, gpu=gpu, nodes=nodes)
        if gpu and settings.scoring == "whole":
            otherwise = way_of_scoring(scored, settings.model_copy(update={"scoring": "auto"}), gpu=gpu, nodes=nodes)
            if otherwise.sharded:
                raise CheckFailed(f"{what} by {way.text} does not fit: set cluster.scoring=auto ({otherwise.text})")
        found.append(f"{what} by {way.text}")
    return "; ".join(found) or "no model scores pairs"


def _scored(recipe: Recipe) -> Iterator[tuple[str, ScoredModel]]:
    """What is scored, for people, and the model that does it."""
    from mixdpo_ray.scoring.reference import reference_model
    from mixdpo_ray.training.model_files import with_absolute_paths

    tokens = pairs_tokens(recipe)
    if recipe.needs_reference:
        logits = min(tokens, recipe.train.logp_chunk_tokens)
        yield "reference log-probs", scored_model(recipe, reference_model(recipe), tokens, logits)
    try:
        metrics = needed_metrics(recipe.metrics_used, recipe.metrics)
    except ValueError as error:
        raise Unchecked(str(error)) from None
    for name, metric in metrics.items():
        if (model := metric.scoring_model(with_absolute_paths(recipe.model))) is not None:
            yield name, scored_model(recipe, model, tokens, kind=metric.loads)
