"""Difficulty metrics of a prepared table's pairs: what is missing is computed, everything else is read.

Log-probs of language models lie in reference/, where training finds and leaves them too; what a metric's own scorer
computes lies in scores/<fingerprint>/. Both are named by what the numbers depend on (model, tokens, the scorer's own
settings) and keyed by pair_id, so that another order, threshold or selection of the same pairs computes nothing again.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.actor_pool import Pool, pairs_tokens
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.cluster.scoring_way import scored_model
from mixdpo_ray.difficulty.metric import (
    AnswerLogps,
    Formula,
    HalfTraining,
    Metric,
    MetricInputs,
    Unseen,
    base_model,
)
from mixdpo_ray.difficulty.resolve import needed_metrics
from mixdpo_ray.difficulty.texts import Texts
from mixdpo_ray.errors import ModelError, NonFiniteError, RecipeError
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.scoring import reference
from mixdpo_ray.scoring.cross_fit import CrossFit
from mixdpo_ray.scoring.reference import check_room
from mixdpo_ray.storage import join
from mixdpo_ray.tables.keyed_table import SCORES, KeyedTable
from mixdpo_ray.tables.prepared_table import SPLITS, PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.training.model_files import model_digest, refuse_missing_folder, with_absolute_paths
from mixdpo_ray.training.model_loading import ModelLoading
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer, tokenizer_digest
from mixdpo_ray.wording import first_line

SHOWN_SAMPLE = 64  # prompts that are looked at before texts are made of them
ScoreColumns = dict[str, dict[str, NDArray[np.float64]]]  # metric -> split -> values by position, higher is easier


def metric_columns(recipe: Recipe, table: PreparedTable, names: Sequence[str]) -> ScoreColumns:
    """The values of these metrics, and of those that they combine. Ray must be connected."""
    values: dict[str, NDArray[np.float64]] = {}
    for name, metric in _needed(recipe, names).items():
        values[name] = metric.compute(PairContext(recipe, table, name, values))
        _refuse_non_finite(table, name, values[name])
    train = table.rows("train")
    return {name: {"train": column[:train], "eval": column[train:]} for name, column in values.items()}


def metric_identity(recipe: Recipe, name: str) -> dict[str, Any]:
    """What the values of a metric depend on beyond the pairs: settings and weights, also of what it combines."""
    policy, identity = with_absolute_paths(recipe.model), dict[str, Any]()
    for part, metric in _needed(recipe, [name]).items():
        scoring = metric.scoring_model(policy)
        models = [*metric.logps_of(policy), *([] if scoring is None else [scoring])]
        identity[part] = {
            "settings": metric.model_dump(mode="json", exclude={"model", "against"}),
            "models": [[weights_of(part, model), model.logps_identity()] for model in models],
        }
        if metric.trains:
            start = base_model(policy)
            train = recipe.train.identity()
            identity[part] |= {"train": train, "start": weights_of(part, start)}
    return identity


def _needed(recipe: Recipe, names: Sequence[str]) -> dict[str, Metric]:
    try:
        metrics = needed_metrics(names, recipe.metrics)
    except ValueError as error:
        raise RecipeError(str(error)) from None
    return {name: with_absolute_paths(metric) for name, metric in metrics.items()}


@dataclass(frozen=True)
class PairContext:
    """What metric `name` is computed from (difficulty/metric.py): what is missing is computed when it is asked for."""

    recipe: Recipe
    table: PreparedTable
    name: str
    known: Mapping[str, NDArray[np.float64]]  # the metrics that were computed before it

    @cached_property
    def train(self) -> NDArray[np.bool_]:
        return np.repeat([True, False], [self.table.rows(split) for split in SPLITS])

    def column(self, name: str) -> NDArray[np.float64]:
        return np.concatenate([self.table.numbers(split, name) for split in SPLITS])

    def inputs(self, metric: Formula) -> MetricInputs:
        models = metric.logps_of(self._policy)
        _refuse_one_model_twice(self.name, models)
        logps = [self._logps(model)[1] for model in models]
        return MetricInputs(
            prompt_length=self.column("prompt_length"),
            chosen_length=self.column("chosen_scored"),
            rejected_length=self.column("rejected_scored"),
            train=self.train,
            logps=logps,
            scores=self._scores(metric) if metric.columns else {},
            metrics={other: self.known[other] for other in metric.others()},
        )

    def cross_fit(self, training: HalfTraining) -> Sequence[Unseen]:
        start = base_model(self._policy)
        return CrossFit(self.recipe, self.table, self.name, training, start, *self._logps(start)).unseen()

    @property
    def _policy(self) -> ModelSettings:
        return with_absolute_paths(self.recipe.model)

    def _logps(self, model: ModelSettings) -> tuple[str, AnswerLogps]:
        """The folder that a model's log-probs lie in, and the log-probs."""
        recipe, table = self.recipe, self.table
        weights_of(self.name, model)
        _refuse_other_tokens(recipe, self.name, model)
        folder = reference.cover(recipe.model_copy(update={"model": model}), table, every_position(table))
        store = ReferenceTable.open(folder)
        both = zip(*(store.aligned(table.index(split).pair_id) for split in SPLITS), strict=True)
        chosen, rejected = (np.concatenate(of_splits).astype(np.float64) for of_splits in both)
        return folder, AnswerLogps(chosen, rejected)

    def _scores(self, metric: Metric) -> dict[str, NDArray[np.float64]]:
        """The columns of the metric's own scorer."""
        recipe, table, name, policy = self.recipe, self.table, self.name, self._policy
        content = scores_identity(recipe, table, name, metric, policy)
        if metric.own_tokenizer:
            _say_what_is_not_understood(table, name, policy)
        folder = scores_folder(recipe, content)
        with exclusive(folder):
            store = KeyedTable.create(folder, fingerprint(content), {"metric": name, **content}, metric.columns)
            model = metric.scoring_model(policy)
            pool = Pool(
                title=name,
                workers=f"workers that compute {name}",
                actor=_ScorePairs,
                arguments=(table.folder, metric, policy),
                gpu=uses_gpu(recipe.cluster) and model is not None,
                settings=recipe.cluster,
                scored=None if model is None else scored_model(recipe, model, pairs_tokens(recipe), kind=metric.loads),
            )
            actor_pool.cover_positions(pool, table, store, every_position(table))
        return {
            column: np.concatenate([store.column(column, table.index(split).pair_id) for split in SPLITS])
            for column in metric.columns
        }


def scores_folder(recipe: Recipe, content: dict[str, Any]) -> str:
    return join(storage.absolute(recipe.output.storage_path), SCORES, fingerprint(content))


def scores_identity(
    recipe: Recipe, table: PreparedTable, name: str, metric: Metric, policy: ModelSettings
) -> dict[str, Any]:
    """What the columns depend on; not the order of the pairs, nor what is done with the columns later."""
    later = {*metric.applied_later, "model", "revision"}
    content: dict[str, Any] = {
        "metric": name,
        "settings": metric.model_dump(mode="json", exclude=later),
        "tokenizer": table.manifest.facts["tokenizer"],
        "lengths": recipe.data.model_dump(include={"max_prompt_length", "max_length", "truncation"}),
    }
    if (model := metric.scoring_model(policy)) is not None:
        content["model"] = model.logps_identity()
        content["weights"] = weights_of(name, model)
        if not metric.own_tokenizer:
            _refuse_other_tokens(recipe, name, model)
        else:
            content["own_tokenizer"] = tokenizer_digest(load_tokenizer(model, f"metrics.{name}.model"))
    return content


def every_position(table: PreparedTable) -> dict[str, NDArray[np.int64]]:
    return {split: np.arange(table.rows(split)) for split in SPLITS}


def _say_what_is_not_understood(table: PreparedTable, name: str, policy: ModelSettings) -> None:
    sample = np.linspace(0, table.rows("train") - 1, min(SHOWN_SAMPLE, table.rows("train"))).astype(np.int64)
    texts = Texts(load_tokenizer(policy))
    prompts = table.read("train", sample)["prompt_ids"].to_pylist()
    whole = sum(not texts.understood(ids) for ids in prompts)
    if whole:
        print(
            f"{name}: of {whole} of {len(prompts)} sampled prompts the turns cannot be told apart any more (cut, or an "
            "unusual chat template): their whole text is taken as one turn of the user",
            file=sys.stderr,
        )


def weights_of(name: str, model: ModelSettings) -> str:
    """A name for the model's weights; a model that is not there is refused before any worker starts."""
    where = f"metrics.{name}.model"
    refuse_missing_folder(where, model.path)
    try:
        return model_digest(model)
    except (OSError, ValueError) as error:
        raise ModelError(f"{where} {model.path!r} cannot be found: {first_line(error)}") from error


def _refuse_one_model_twice(name: str, models: Sequence[ModelSettings]) -> None:
    weights = [weights_of(name, model) for model in models]
    if len(set(weights)) < len(weights):
        raise ModelError(
            f"metrics.{name}.model {models[0].path!r} is the very model that it is compared with: every pair would "
            "have margin 0; give one that was trained, or reference_free: true"
        )


def _refuse_other_tokens(recipe: Recipe, name: str, model: ModelSettings) -> None:
    """The table's token ids mean something to models of the policy's vocabulary alone."""
    policy = with_absolute_paths(recipe.model)
    if model.path == policy.path:
        return
    own = load_tokenizer(model.model_copy(update={"tokenizer": None, "chat_template": None}), f"metrics.{name}.model")
    if own.get_vocab() != load_tokenizer(policy).get_vocab():
        raise ModelError(
            f"metrics.{name}.model {model.path!r} has another vocabulary than {policy.path!r}, whose tokens the pairs "
            "are: give a model of the same family"
        )


def _refuse_non_finite(table: PreparedTable, name: str, column: NDArray[np.float64]) -> None:
    bad = np.flatnonzero(~np.isfinite(column))
    if len(bad):
        first, train = int(bad[0]), table.rows("train")
        pair_id = table.index("train").pair_id[first] if first < train else table.index("eval").pair_id[first - train]
        raise NonFiniteError(
            f"{name} of pair {pair_id} is not finite ({len(bad)} of {len(column)} pairs); check metrics.{name}"
        )


class _ScorePairs:
    """One copy of a metric's model."""

    def __init__(self, folder: str, metric: Metric, policy: ModelSettings, loading: ModelLoading):
        self.table = PreparedTable.open(folder)
        self.columns = metric.columns
        model = metric.scoring_model(policy)
        if model is not None:
            check_room(model, loading, "the metric's model", metric.loads)
        self.score = metric.scorer(policy, loading)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        positions = np.sort(np.asarray(batch["positions"][0], np.int64))
        rows = self.table.read(str(batch["split"][0]), positions)
        found = self.score(rows)
        return pa.table(
            {"pair_id": rows["pair_id"]}
            | {column: pa.array(np.asarray(found[column], np.float64)) for column in self.columns}
        )
