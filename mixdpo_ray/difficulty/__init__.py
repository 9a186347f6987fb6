"""Difficulty metrics by name. To add one: a class in a file of its own (see metric.py), and its key here."""

from mixdpo_ray.difficulty.alignment_potential import AlignmentPotential
from mixdpo_ray.difficulty.bees import BeeS
from mixdpo_ray.difficulty.ches import CHES
from mixdpo_ray.difficulty.dcrm import DCRM
from mixdpo_ray.difficulty.embedding_distance import EmbeddingDistance
from mixdpo_ray.difficulty.implicit_margin import ImplicitMargin
from mixdpo_ray.difficulty.length import Length
from mixdpo_ray.difficulty.metric import Metric
from mixdpo_ray.difficulty.perplexity import Perplexity
from mixdpo_ray.difficulty.reward_margin import RewardMargin
from mixdpo_ray.difficulty.table_columns import (
    ChosenLength,
    PromptLength,
    RatingMargin,
    RejectedLength,
    ScoreChosen,
    ScoreRejected,
)
from mixdpo_ray.difficulty.validation_loss import ValidationLoss

METRICS: dict[str, type[Metric]] = {
    "rating_margin": RatingMargin,
    "score_chosen": ScoreChosen,
    "score_rejected": ScoreRejected,
    "prompt_length": PromptLength,
    "chosen_length": ChosenLength,
    "rejected_length": RejectedLength,
    "length": Length,
    "reward_margin": RewardMargin,
    "embedding_distance": EmbeddingDistance,
    "implicit_margin": ImplicitMargin,
    "perplexity": Perplexity,
    "ches": CHES,
    "alignment_potential": AlignmentPotential,
    "dcrm": DCRM,
    "bees": BeeS,
    "validation_loss": ValidationLoss,
}
