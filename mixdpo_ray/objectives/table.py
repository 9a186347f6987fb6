"""The README's table of objectives."""

from __future__ import annotations

from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective


def objectives_table() -> str:
    rows = ["| `objective.name` | | settings | needs |", "|---|---|---|---|"]
    rows += [_row(name, kind) for name, kind in OBJECTIVES.items()]
    return "\n".join(rows)


def _row(name: str, kind: type[Objective]) -> str:
    about = (kind.__doc__ or "").splitlines()[0]
    settings = ", ".join(f"`{field} {_shown(info.default)}`" for field, info in kind.model_fields.items())
    return f"| `{name}` | {about}{' (experimental)' if kind.experimental else ''} | {settings} | {_needs(kind)} |"


def _needs(kind: type[Objective]) -> str:
    needs = {
        "reference": kind.needs_reference and not kind.needs_tokens,
        "reference of each token": kind.needs_tokens,
        "margin": kind.uses_margin and kind.takes_ties,
        "margin above 0": not kind.takes_ties,
        "a look at the step": issubclass(kind, StepObjective),
    }
    return ", ".join(name for name, needed in needs.items() if needed)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
