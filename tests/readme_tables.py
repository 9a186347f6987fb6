"""Tables of the README files, from the code itself: objectives, difficulty metrics, benchmarks, rooms, settings.

python -m tests.readme_tables    # writes them between their marks
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mixdpo_ray.benchmarks import BENCHMARKS
from mixdpo_ray.difficulty import METRICS
from mixdpo_ray.objectives import OBJECTIVES
from mixdpo_ray.objectives.objective import Objective
from mixdpo_ray.objectives.step_objective import StepObjective
from mixdpo_ray.pairs.curating import CURATIONS, EmbeddingSettings
from mixdpo_ray.raters import RATERS
from mixdpo_ray.recipe.file import describe_first_settings
from mixdpo_ray.settings import Settings
from tests.test_imports import ROOMS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mixdpo_ray"


def tables() -> dict[Path, str]:
    """What each file should say."""
    places = [
        (ROOT / "README.md", "rooms", _rooms()),
        (ROOT / "jobs" / "answers.md", "sample", _section("answers.sample")),
        (ROOT / "jobs" / "answers.md", "rate", _section("answers.rate")),
        (ROOT / "jobs" / "answers.md", "raters", _raters()),
        (ROOT / "jobs" / "answers.md", "evaluate", _section("answers.evaluate")),
        (ROOT / "jobs" / "answers.md", "iterate", _section("answers.iterate")),
        (ROOT / "jobs" / "README.md", "curate", _curations()),
        (PACKAGE / "objectives" / "README.md", "objectives", _objectives()),
        (PACKAGE / "difficulty" / "README.md", "metrics", _metrics()),
        (PACKAGE / "benchmarks" / "README.md", "benchmarks", _benchmarks()),
    ]
    texts = {file: file.read_text() for file, _, _ in places}
    for file, name, rows in places:
        texts[file] = with_table(file, texts[file], name, rows)
    return texts


def with_table(file: Path, text: str, name: str, rows: list[str]) -> str:
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of {name} -->")
    assert end, f"{file} has no place for the table of {name}"
    return before + "\n".join([f"<!-- {name} -->", *rows, f"<!-- end of {name} -->"]) + after


def _rooms() -> list[str]:
    """In the order of the law of imports, each by the first line of its docstring."""
    rows = ["| `mixdpo_ray/` | |", "|---|---|"]
    for room in ROOMS[:-1]:
        folder = PACKAGE / room
        file = folder / "__init__.py" if folder.is_dir() else PACKAGE / f"{room}.py"
        about = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0].rstrip(".")
        rows.append(f"| `{room}{'/' if folder.is_dir() else '.py'}` | {about} |")
    return rows


def _section(name: str) -> list[str]:
    """A section of the recipe, as --help shows it."""
    lines = describe_first_settings(section=name).splitlines()
    shown = [(line.partition(" = "), text.strip()) for line, text in zip(lines[::2], lines[1::2], strict=True)]
    rows = [f"| `{setting}` | `{default}` | {text} |" for (setting, _, default), text in shown]
    own = [row for row in rows if row.startswith(f"| `{name}.") and "source." not in row.split("`")[1]]
    return ["| setting | default | |", "|---|---|---|", *own]


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


def _raters() -> list[str]:
    rows = [
        f"| `{name}` | {_about(kind, False)} | {_settings(kind) or 'none'} | {kind.needs} |"
        for name, kind in RATERS.items()
    ]
    return ["| kind | | settings | needs |", "|---|---|---|---|", *rows]


def _benchmarks() -> list[str]:
    rows = [
        f"| `{name}` | {_about(kind, False)} | {_settings(kind)} | `{kind.main}` |" for name, kind in BENCHMARKS.items()
    ]
    return ["| benchmark | | settings | compared by |", "|---|---|---|---|", *rows]


def _curations() -> list[str]:
    rows = [f"| `{name}` | {_about(kind, False)} | {_settings(kind)} |" for name, kind in CURATIONS.items()]
    return ["| `data.curate.method` | | settings |", "|---|---|---|", *rows]


def _about(kind: type, experimental: bool) -> str:
    return (kind.__doc__ or "").splitlines()[0].rstrip(".") + (" (experimental)" if experimental else "")


def _settings(kind: type[BaseModel]) -> str:
    shown = (
        f"`{name}`" if info.is_required() else f"`{name} {_value(info.default)}`" for name, info in _fields(kind, "")
    )
    return ", ".join(shown)


def _fields(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """A section's own settings by their dotted names; those of adapters stay one value."""
    for name, info in kind.model_fields.items():
        if isinstance(info.default, EmbeddingSettings):
            yield from _fields(type(info.default), f"{name}.")
        else:
            yield f"{prefix}{name}", info


def _needs(kind: type[Objective]) -> str:
    needs = {
        "reference": kind.needs_reference and not kind.needs_tokens,
        "reference of each token": kind.needs_tokens,
        "all probabilities": kind.needs_typicality,
        "margin": kind.uses_margin and kind.takes_ties,
        "margin above 0": not kind.takes_ties,
        "the whole step": issubclass(kind, StepObjective),
    }
    return ", ".join(name for name, needed in needs.items() if needed)


def _value(value: object) -> str:
    if isinstance(value, Settings):
        return " ".join(f"{name}={_value(inner)}" for name, inner in value.model_dump(exclude_unset=True).items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    for file, text in tables().items():
        file.write_text(text)
