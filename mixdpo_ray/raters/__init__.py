"""Raters of answers by name. To add one: a class in a file of its own (see rater.py), and its key here."""

from mixdpo_ray.raters.implicit import ImplicitRater
from mixdpo_ray.raters.judge import JudgeRater
from mixdpo_ray.raters.playground import PlaygroundRater
from mixdpo_ray.raters.rater import Rater
from mixdpo_ray.raters.reward_model import RewardModelRater

RATERS: dict[str, type[Rater]] = {
    "reward_model": RewardModelRater,
    "judge": JudgeRater,
    "implicit": ImplicitRater,
    "playground": PlaygroundRater,
}
