"""How a recipe names objectives, and what curriculum.hard_objective may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.label_noise import CURATED
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.sft import SFT
from mixdpo_ray.objectives.step_objective import StepObjective
from mixdpo_ray.wording import did_you_mean


def objective_name(objective: Objective) -> str:
    return next(name for name, kind in OBJECTIVES.items() if type(objective) is kind)


def _pick(value: object) -> Objective:
    if isinstance(value, Objective):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"write {{name: ..., beta: ...}}; name is one of {', '.join(OBJECTIVES)}")
    hyperparameters = dict(value)
    name = hyperparameters.pop("name", "dpo")
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; {did_you_mean(str(name), OBJECTIVES)}")
    return OBJECTIVES[name].model_validate(hyperparameters)


def _pick_hard(value: object) -> Objective | None:
    """None is SFT on the chosen answers. A bare name is enough, so that a search may choose among them."""
    if value is None:
        return None
    named = {"name": value} if isinstance(value, str) else value
    if isinstance(named, Mapping) and named.get("name") == "none":
        raise ValueError("to leave hard pairs out, write curriculum.mode discard_hard")
    objective = _pick(named)
    name = objective_name(objective)
    if objective == SFT():
        return None
    if isinstance(objective, StepObjective):
        raise ValueError(f"{name} reads the whole step, and only its easy pairs: choose an objective of single pairs")
    if not objective.takes_ties:
        raise ValueError(f"{name} has no loss for ties, which hard pairs may be: choose another objective")
    if getattr(objective, "label_smoothing", None) == CURATED:
        raise ValueError("label_smoothing curated is estimated for all pairs, not for hard ones: give a share")
    return objective


def _to_dict(objective: Objective | None) -> dict[str, Any] | None:
    return None if objective is None else {"name": objective_name(objective), **objective.model_dump()}


ObjectiveField = Annotated[Objective, BeforeValidator(_pick), PlainSerializer(_to_dict)]
HardObjectiveField = Annotated[Objective | None, BeforeValidator(_pick_hard), PlainSerializer(_to_dict)]
