"""Preference objectives by name. To add one: a class in a file of its own, and its key here."""

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.ipo import IPO
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.simpo import SimPO

OBJECTIVES: dict[str, type[Objective]] = {
    "dpo": DPO,
    "ipo": IPO,
    "simpo": SimPO,
}
