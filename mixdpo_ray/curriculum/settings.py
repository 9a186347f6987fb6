"""The curriculum section of a recipe."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from mixdpo_ray.curriculum.order import Order
from mixdpo_ray.curriculum.threshold import Threshold
from mixdpo_ray.objectives.by_name import HardObjectiveField, objective_name
from mixdpo_ray.objectives.sft_weights import SftNorm
from mixdpo_ray.settings import Settings

Mode = Literal["two_stage", "router", "sorted_dpo", "discard_hard", "router_shuffled"]

RATING_MARGIN = "rating_margin"  # the metric of the paper, and the one that a threshold of its own is meant for


class PerBucket(Settings):
    """Buckets of the easy stage, cut between steps."""

    per_bucket: int = Field(ge=2, description="Equal parts of the stage; the policy is the reference of the next one")


class CurriculumSettings(Settings):
    difficulty: str = Field(RATING_MARGIN, description="The metric that says how easy a pair is")
    threshold: Threshold = Field(Threshold(), description="Where easy ends and hard begins")
    mode: Mode = Field("two_stage", description="How easy and hard pairs are trained; two_stage is MixDPO")
    order: Order = Field("descending", description="From clear to ambiguous, the reverse, or at random")
    swap_fraction: float = Field(0.0, ge=0, le=0.5, description="Exchange the last two blocks of this share (ablation)")
    seed: int = Field(42, ge=0, description="Breaks ties and shuffles, by a hash of the pair's content")
    epoch_order: Literal["stage_major", "curriculum_major"] = Field(
        "stage_major", description="Several epochs: each stage repeated, or the whole curriculum repeated"
    )
    thin: int = Field(
        1, ge=1, description="Train every n-th window of each stage, first and last always: 2 is half of the steps"
    )
    hard_objective: HardObjectiveField = Field(
        None,
        description="Objective of hard pairs instead of SFT on the chosen answer: todo and dpo_d take them as ties",
    )
    sft_weight: float = Field(1.0, ge=0, description="Weight of the SFT loss of hard pairs")
    sft_norm: SftNorm | None = Field(
        None, description="What the SFT loss is divided by; token_mean in two_stage, example_mean in a router"
    )
    refresh_reference: Literal["per_stage"] | PerBucket | None = Field(
        None, description="Make the policy the reference where a stage begins (per_stage), or of {per_bucket: n} parts"
    )

    @field_validator("thin", mode="before")
    @classmethod
    def _is_no_share(cls, thin: object) -> object:
        if isinstance(thin, float) and 0 < thin < 1:
            raise ValueError(
                f"it is no share, but n where every n-th window is trained: give {max(2, round(1 / thin))}"
            )
        return thin

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        if self.mode == "router_shuffled" and self.order == "ascending":
            raise ValueError("mode router_shuffled draws at random: leave order out, or choose mode router")
        if self.swap_fraction and self.physical_order == "shuffled":
            raise ValueError("swap_fraction exchanges blocks of a sorted curriculum: it has no meaning when shuffled")
        if self.hard_objective is not None and self.mode in ("discard_hard", "sorted_dpo"):
            name = objective_name(self.hard_objective)
            raise ValueError(f"hard_objective {name} gets no pairs in mode {self.mode}: leave it out")
        return self

    @property
    def physical_order(self) -> Order:
        return "shuffled" if self.mode == "router_shuffled" else self.order

    def identity(self) -> dict[str, Any]:
        """What tells one training from another. What is off is left out, since earlier versions had nothing else."""
        off = {name for name in ("hard_objective", "refresh_reference") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=off)

    @property
    def order_identity(self) -> dict[str, Any]:
        """What the prepared table's order depends on."""
        return {
            "difficulty": self.difficulty,
            "order": self.physical_order,
            "seed": self.seed,
            "swap_fraction": self.swap_fraction,
        }

    @property
    def sft_normalisation(self) -> SftNorm:
        return self.sft_norm or ("token_mean" if self.mode == "two_stage" else "example_mean")
