"""What every difficulty metric is: frozen settings, what it needs of each pair, and how it is computed from that.

Numbers of pairs come from four sources: the prepared table's own columns, log-probs of language models (which metrics
share with each other and with training), columns that the metric's own scorer computes, and other metrics.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mixdpo_ray.settings import Settings
from mixdpo_ray.training.settings import Dtype, LoraSettings, ModelSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from mixdpo_ray.training.model_loading import ModelLoading

Column = NDArray[np.float64]  # [pairs]
PairScorer = Callable[["pa.Table"], Mapping[str, Any]]  # rows of a prepared table -> a value per row for each column


@dataclass(frozen=True)
class AnswerLogps:
    """Log-probs of answers under one model, summed over completion tokens: [pairs] each."""

    chosen: Column
    rejected: Column


@dataclass(frozen=True)
class MetricInputs:
    """All that a formula reads, of every pair of both splits: [pairs] each."""

    prompt_length: Column
    chosen_length: Column
    rejected_length: Column
    train: NDArray[np.bool_]  # pairs whose statistics are those of the data set
    logps: Sequence[AnswerLogps] = ()  # in the order of logps_of
    scores: Mapping[str, Column] = field(default_factory=dict)  # the scorer's columns
    metrics: Mapping[str, Column] = field(default_factory=dict)  # those of `others`


@dataclass(frozen=True)
class HalfTraining:
    """Short DPO trainings of the untrained policy: for each seed two, on the halves of the pairs that it draws."""

    seeds: Sequence[int]
    beta: float
    learning_rate: float
    num_train_epochs: int
    global_batch_size: int | None  # the recipe's where there is none
    lora: LoraSettings | None  # adapters; without them all weights are trained


@dataclass(frozen=True)
class Unseen:
    """The pairs that one training has not seen, and their log-probs under its model and under the one it began with."""

    positions: NDArray[np.int64]  # [pairs], each once, of what `compute` gives
    trained: AnswerLogps
    start: AnswerLogps


class MetricContext(Protocol):
    """The pairs of one prepared table: the training pairs and behind them the held-out ones."""

    @property
    def train(self) -> NDArray[np.bool_]:
        """The mask [pairs] of those whose statistics are those of the data set."""

    def column(self, name: str) -> Column:
        """One of the table's own."""

    def inputs(self, metric: Formula) -> MetricInputs:
        """All that the metric says it reads."""

    def cross_fit(self, training: HalfTraining) -> Sequence[Unseen]:
        """Train models on halves of the pairs; each gives the log-probs of the pairs that it has not seen.

        Needs room on the cluster (`Metric.trains`). What was trained and scored before is read.
        """


class Metric(Settings, ABC):
    """Higher is easier, or better to train on: whatever its name says, `compute` turns it so."""

    needs: ClassVar[str]  # in words, for the README
    trains: ClassVar[bool] = False  # whether computing it trains models, for which the cluster must have room
    smaller_is_easier: ClassVar[bool] = False  # in its own values, which are what people give limits for
    experimental: ClassVar[bool] = False  # reconstructed from prose: nobody's code was there to compare with
    columns: ClassVar[tuple[str, ...]] = ()  # what the scorer computes and what is kept on disk
    own_tokenizer: ClassVar[bool] = False  # whether the scorer's model reads text, not the table's tokens
    applied_later: ClassVar[tuple[str, ...]] = ()  # settings that do not change the columns
    loads: ClassVar[str] = "AutoModel"  # the class of transformers that the scorer reads its model by

    @abstractmethod
    def compute(self, context: MetricContext) -> Column:
        """The metric of every pair of both splits."""

    @classmethod
    def easiness(cls, values: Column) -> Column:
        """Its own values, turned so that higher is easier."""
        return -values if cls.smaller_is_easier else values

    def others(self) -> tuple[str, ...]:
        """The metrics that it combines."""
        return ()

    def logps_of(self, policy: ModelSettings) -> tuple[ModelSettings, ...]:
        """The models whose log-probs it compares; `policy` is the starting point of training."""
        return ()

    def scoring_model(self, policy: ModelSettings) -> ModelSettings | None:
        """The one that the scorer loads."""
        return None

    def scorer(self, policy: ModelSettings, loading: ModelLoading) -> PairScorer:
        """Made once in each worker. Heavy libraries are imported here: a recipe must load without them.

        `loading.load(...)` puts the model where it is run; in shards, a call runs it once, whatever the rows are.
        """
        raise NotImplementedError


class Formula(Metric):
    """One that is a formula of what it declares to read: most of them are."""

    def compute(self, context: MetricContext) -> Column:
        return self.values(context.inputs(self))

    @abstractmethod
    def values(self, facts: MetricInputs) -> Column: ...


class ModelMetric(Formula):
    """One that loads another kind of model than the policy's."""

    own_tokenizer: ClassVar[bool] = True

    model: str = Field(description="Hugging Face name or folder of the model that scores")
    revision: str | None = Field(None, description="Commit or tag on the Hub")
    dtype: Dtype = Field("bfloat16", description="Number format of its weights")
    trust_remote_code: bool = Field(False, description="Run code that the model's repository brings along")

    def scoring_model(self, policy: ModelSettings) -> ModelSettings:
        return ModelSettings.model_validate(
            {
                "path": self.model,
                "revision": self.revision,
                "dtype": self.dtype,
                "trust_remote_code": self.trust_remote_code,
            }
        )


def language_model(policy: ModelSettings, path: str | None) -> ModelSettings:
    """Another model with the policy's tokenizer and number format; the policy's own start where no path is given."""
    bare = policy.model_copy(update={"reference": None, "lora": None})
    if path is None:
        if policy.lora is None or policy.lora.adapter is None:
            return bare
        lora = policy.lora.model_copy(update={"reference": "adapter"})  # whatever training compares with
        return policy.model_copy(update={"reference": None, "lora": lora})
    return bare.model_copy(update={"path": path, "revision": None, "tokenizer": policy.tokenizer or policy.path})


def base_model(policy: ModelSettings) -> ModelSettings:
    """What short trainings begin with, for adapters of their own: the policy's start without any."""
    return language_model(policy.model_copy(update={"lora": None}), None)


def standardised(values: Column, train: NDArray[np.bool_]) -> Column:
    """Z-scores by mean and standard deviation of the whole data set, not of a sample; 0 where all are equal."""
    mean, deviation = values[train].mean(), values[train].std()
    return (values - mean) / deviation if deviation > 0 else np.zeros_like(values)
