"""The README's tables of objectives and of difficulty metrics, from the classes themselves.

python -m tests.readme_tables    # writes them between their marks
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective

README = Path(__file__).parents[1] / "README.md"


def with_tables(text: str) -> str:
    for name, rows in {"objectives": _objectives(), "metrics": _metrics()}.items():
        block = "\n".join([f"<!-- {name} -->", *rows, f"<!-- end of {name} -->"])
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        assert end, f"README.md has no place for the table of {name}"
        text = before + block + after
    return text


def _objectives() -> list[str]:
    rows = [
        f"| `{name}` | {_about(kind, kind.experimental)} | {_settings(kind)} | {_needs(kind)} |"
        for name, kind in OBJECTIVES.items()
    ]
    return ["| `objective.name` | | settings | reads |", "|---|---|---|---|", *rows]


def _metrics() -> list[str]:
    rows = [
        f"| `{name}` | {_about(kind, kind.experimental)} | {_settings(kind)} | {kind.needs} |"
        for name, kind in METRICS.items()
    ]
    return ["| metric | | settings | needs |", "|---|---|---|---|", *rows]


def _about(kind: type, experimental: bool) -> str:
    return (kind.__doc__ or "").splitlines()[0].rstrip(".") + (" (experimental)" if experimental else "")


def _settings(kind: type[BaseModel]) -> str:
    shown = (
        f"`{name}`" if info.is_required() else f"`{name} {_value(info.default)}`"
        for name, info in kind.model_fields.items()
    )
    return ", ".join(shown)


def _needs(kind: type[Objective]) -> str:
    needs = {
        "reference": kind.needs_reference and not kind.needs_tokens,
        "reference of each token": kind.needs_tokens,
        "margin": kind.uses_margin and kind.takes_ties,
        "margin above 0": not kind.takes_ties,
        "the whole step": issubclass(kind, StepObjective),
    }
    return ", ".join(name for name, needed in needs.items() if needed)


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
