"""The one settings tree. A recipe is a YAML file of it; `dotted.key=value` overrides single settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, field_validator, model_validator

from mixdpo_ray.curriculum.refresh import never_refreshes
from mixdpo_ray.curriculum.settings import RATING_MARGIN, CurriculumSettings
from mixdpo_ray.curriculum.shares import TokenBudget
from mixdpo_ray.curriculum.threshold import TOLERANCE, Threshold
from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.difficulty.metric import Metric
from mixdpo_ray.difficulty.resolve import needed_metrics
from mixdpo_ray.objectives.by_name import ObjectiveField, objective_name
from mixdpo_ray.objectives.label_noise import CURATED
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.pairs.formats import FORMATS, idle_rule
from mixdpo_ray.pairs.settings import DataSettings
from mixdpo_ray.recipe.answers import AnswersSettings
from mixdpo_ray.recipe.cluster import ClusterSettings
from mixdpo_ray.recipe.compare import CompareSettings
from mixdpo_ray.recipe.named import named_alone, of_its_name, with_names
from mixdpo_ray.recipe.push import PushSettings
from mixdpo_ray.recipe.sequence_parallel import unshared_rows
from mixdpo_ray.recipe.tune import TuneSettings
from mixdpo_ray.settings import Settings
from mixdpo_ray.storage import is_local
from mixdpo_ray.tracking.settings import TRACKERS, TrackerSettings
from mixdpo_ray.training.metric_names import JUDGE_METRICS, set_and_metric
from mixdpo_ray.training.settings import DeepSpeedSettings, ModelSettings, TrainSettings
from mixdpo_ray.wording import did_you_mean

TrackerField = Annotated[TrackerSettings, BeforeValidator(of_its_name(TRACKERS)), SerializeAsAny()]
TrackersField = Annotated[
    dict[str, TrackerField],
    BeforeValidator(with_names(TRACKERS, "tracker", "{wandb: {project: mine}}")),
    BeforeValidator(named_alone),
]


class OutputSettings(Settings):
    storage_path: str = Field("outputs", description="Folder or URI that everything is written under")
    name: str = Field("run", description="Name of the run; the name of the recipe's file where none is given")
    fresh: bool = Field(False, description="Delete the run of this name and start over")
    trackers: TrackersField = Field(
        {}, description="What shows the training as it goes, such as {wandb: {project: mine}}, or [tensorboard] alone"
    )

    push_to_hub: PushSettings | None = Field(
        None,
        description="Where the trained model goes on the Hugging Face Hub, such as me/my-model; by default nowhere",
    )

    @field_validator("name")
    @classmethod
    def _names_one_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(
                "it names a folder: use letters, digits, '.', '_' and '-', and begin with a letter or digit"
            )
        return name

    @model_validator(mode="after")
    def _trackers_can_write(self) -> Self:
        for name, settings in self.trackers.items():
            if settings.needs_local_run and not is_local(self.storage_path):
                raise ValueError(
                    f"trackers.{name} writes local files beside the run, and storage_path is {self.storage_path}: "
                    "leave it out, or choose a folder"
                )
        return self


MetricField = Annotated[Metric, BeforeValidator(of_its_name(METRICS)), SerializeAsAny()]
MetricsField = Annotated[
    dict[str, MetricField], BeforeValidator(with_names(METRICS, "metric", "{reward_margin: {model: ...}}"))
]


class Recipe(Settings):
    model: ModelSettings
    data: DataSettings
    curriculum: CurriculumSettings = CurriculumSettings()
    metrics: MetricsField = Field({}, description="Difficulty metrics by name, each with its settings")
    objective: ObjectiveField = Field({"name": "dpo"}, validate_default=True)
    train: TrainSettings = TrainSettings()
    deepspeed: DeepSpeedSettings = DeepSpeedSettings()
    cluster: ClusterSettings = ClusterSettings()
    tune: TuneSettings = TuneSettings()
    compare: CompareSettings = CompareSettings()
    answers: AnswersSettings = AnswersSettings()
    output: OutputSettings = OutputSettings()

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.curriculum.sft_weight == 0 and self.curriculum.mode == "two_stage":
            raise ValueError("curriculum.sft_weight 0 leaves the hard stage nothing to learn: use mode discard_hard")
        for data in self.data.trained.values():
            if data.source.format in FORMATS and (idle := idle_rule(data.source.format, data.pair)):
                raise ValueError(idle)
        if (setting := self.train.needs_held_out) and not self.data.holds_out:
            raise ValueError(f"{setting} needs held-out pairs, and data.heldout holds out none: give it a fraction")
        lora = self.model.lora
        if lora is not None and lora.export == "adapter" and (setting := self.needs_judge):
            raise ValueError(
                f"{setting} judges whole models, and model.lora.export adapter leaves none: set it to both"
            )
        if lora is not None and lora.quantize and self.deepspeed.zero_stage == 3:
            raise ValueError(
                "model.lora.quantize: weights in 4 bits are not sharded, and deepspeed.zero_stage is 3: set it to 2"
            )
        if self.model.kernels == "liger" and self.cluster.use_gpu is False:
            raise ValueError("model.kernels liger needs GPUs, and cluster.use_gpu is false: set it to none")
        if isinstance(self.train.per_device_train_batch_size, TokenBudget) and not self.model.packing:
            raise ValueError(
                "train.per_device_train_batch_size counts tokens, for which rows must be packed: give a number of "
                "pairs, or model.packing auto or on"
            )
        if getattr(self.objective, "label_smoothing", None) == CURATED and self.data.curate is None:
            raise ValueError(
                "objective.label_smoothing curated is what data.curate estimates: give data.curate, or a share"
            )
        hard = self.curriculum.hard_objective
        weighed = self.curriculum.sft_weight != 1 or self.curriculum.sft_norm is not None
        if hard is not None and weighed and self.data.sft is None:
            raise ValueError(
                "curriculum.sft_weight and sft_norm are of SFT, and hard_objective "
                f"{objective_name(hard)} trains the hard pairs: leave them out"
            )
        if self.curriculum.refresh_reference is not None:
            self._check_refresh()
        if (setting := self.needs_judge) and self.answers.judge is None:
            raise ValueError(
                f"{setting} asks a judge, and answers.judge names none: give it, such as {{engine: http, http: {{url: "
                "..., model: ...}}"
            )
        if self.data.sft is not None and self.curriculum.mode in ("discard_hard", "sorted_dpo"):
            raise ValueError(
                f"data.sft is trained among the hard pairs, and curriculum.mode {self.curriculum.mode} trains none: "
                "choose two_stage or router, or leave it out"
            )
        self._check_held_out_sets()
        needed_metrics(self.metrics, self.metrics)
        self._check_metrics()
        if self.model.reference and not self.needs_reference:
            raise ValueError(
                f"model.reference {self.model.reference!r} would never be read: objective "
                f"{objective_name(self.objective)} has no reference; leave it out"
            )
        return self

    @model_validator(mode="after")
    def _rows_can_be_shared(self) -> Self:
        ranks, cluster = self.deepspeed.sequence_parallel, self.cluster
        if reason := unshared_rows(ranks, self.model, cluster):
            raise ValueError(reason)
        return self

    @property
    def needs_reference(self) -> bool:
        return any(one.needs_reference for one in self.objectives)

    @property
    def needs_tokens(self) -> bool:
        return any(one.needs_tokens for one in self.objectives)

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Those of easy and of hard pairs; SFT is none of them."""
        hard = self.curriculum.hard_objective
        return (self.objective,) if hard is None else (self.objective, hard)

    @property
    def metrics_used(self) -> tuple[str, ...]:
        """Names of the metrics that pairs are ordered and selected by."""
        selecting = [metric for rule in self.data.select for metric in rule.metrics]
        return tuple(dict.fromkeys([self.curriculum.difficulty, *selecting]))

    @property
    def needs_judge(self) -> str | None:
        """A setting that has what models write judged; none where nothing is."""
        if named := [name for name in self.tune.named_metrics if name in JUDGE_METRICS]:
            return f"tune.metric or tune.guard {named[0]}"
        if self.compare.metric is not None and self.compare.measure.name in JUDGE_METRICS:
            return f"compare.metric {self.compare.measure.name}"
        return None if self.train.evaluation.judge is None else "train.evaluation.judge"

    def trains_for(self, metrics: Iterable[str]) -> bool:
        """Whether curating, or computing these metrics or one that they combine, trains models."""
        curate = self.data.curate
        if curate is not None and curate.trains:
            return True
        return any(metric.trains for metric in needed_metrics(metrics, self.metrics).values())

    def _check_refresh(self) -> None:
        name, hard = objective_name(self.objective), self.curriculum.hard_objective
        if not self.needs_reference:
            raise ValueError(f"curriculum.refresh_reference: objective {name} has no reference; leave it out")
        if self.needs_tokens:
            raise ValueError(
                f"curriculum.refresh_reference computes log-probs of answers, and objective {name} needs those of "
                "their tokens: leave it out, or choose another objective"
            )
        compares = {"easy": self.objective.needs_reference, "hard": hard is not None and hard.needs_reference}
        per_stage = self.curriculum.refresh_reference == "per_stage"
        if per_stage and never_refreshes(self.curriculum, self.train.num_train_epochs, **compares):
            raise ValueError(
                "curriculum.refresh_reference per_stage would never refresh: no stage after the first compares pairs "
                f"(mode {self.curriculum.mode}, {self.train.num_train_epochs} epochs); give {{per_bucket: 3}}, or "
                "several train.num_train_epochs with epoch_order curriculum_major"
            )

    def _check_held_out_sets(self) -> None:
        """Metrics of a held-out set name one that there is."""
        compared = [] if self.compare.metric is None else [("compare.metric", self.compare.measure.name)]
        named = [("tune.metric or tune.guard", name) for name in self.tune.named_metrics] + compared
        named.append(("train.checkpoints.keep_best", self.train.checkpoints.keep_best or ""))
        for setting, metric in named:
            name, sets = set_and_metric(metric)[0], self.data.heldout.sets
            if name and name not in sets:
                meant = did_you_mean(name, sets) if sets else "it names none"
                raise ValueError(f"{setting} {metric}: data.heldout.sets has no set {name!r}; {meant}")

    def _check_metrics(self) -> None:
        for name in self.metrics_used:
            where = "curriculum.difficulty" if name == self.curriculum.difficulty else "data.select"
            needed_metrics([name], self.metrics, where)
        curriculum = self.curriculum
        by_margin = curriculum.difficulty == RATING_MARGIN or curriculum.mode == "sorted_dpo"
        if not by_margin and curriculum.threshold == Threshold():
            raise ValueError(
                f"curriculum.threshold 0.5 is a rating margin and says nothing about {curriculum.difficulty}: give "
                "threshold.hard_fraction, hard_count or value"
            )

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    def training_identity(self) -> dict[str, Any]:
        """What decides whether a checkpoint belongs to this run: worker count, paths and logging do not."""
        everything = self.to_dict()
        curriculum = self.curriculum.identity()
        curriculum["threshold"]["tolerance"] = TOLERANCE  # a setting once: recorded identities hold it
        return {
            "model": self.model.identity(),
            "data": self.data.identity(),
            "curriculum": curriculum,
            "objective": everything["objective"],
            "train": self.train.identity(),
            "deepspeed": {"zero_stage": self.deepspeed.zero_stage},
        }


def fingerprint(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
