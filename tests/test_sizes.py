"""Files of at most 300 lines, functions of 60, settings classes of 12 fields, and no drawer for odds and ends.

Code decays unless something stops it. When a limit hurts, the design is wrong and not the limit.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("mixdpo_ray", "jobs", "tests")
FILE_LINES, FUNCTION_LINES, SETTINGS_FIELDS = 300, 60, 12
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc"}


def sources(root: Path) -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (root / folder).glob("**/*.py"))


def classes(nodes: Iterable[ast.AST]) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}


def bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base).rpartition(".")[2] for base in node.bases]


def is_settings(name: str, known: dict[str, ast.ClassDef]) -> bool:
    return name == "Settings" or (name in known and any(is_settings(base, known) for base in bases(known[name])))


def fields(name: str, known: dict[str, ast.ClassDef]) -> set[str]:
    """Own and inherited fields of a settings class."""
    if name not in known:
        return set()
    own = {
        ast.unparse(line.target)
        for line in known[name].body
        if isinstance(line, ast.AnnAssign)
        and not ast.unparse(line.annotation).startswith(("ClassVar", "typing.ClassVar"))
    }
    return own.union(*(fields(base, known) for base in bases(known[name])))


def violations(root: Path) -> list[str]:
    texts = {path: path.read_text("utf-8") for path in sources(root)}
    nodes = {path: list(ast.walk(ast.parse(text))) for path, text in texts.items()}
    found, known = [], classes(chain.from_iterable(nodes.values()))
    for path, text in texts.items():
        where = path.relative_to(root)
        if DRAWERS & {part.removesuffix(".py") for part in where.parts} or path.stem.endswith(("_utils", "_helpers")):
            found.append(f"{where}: a drawer for odds and ends; name the file after its one concept")
        if (lines := len(text.splitlines())) > FILE_LINES:
            found.append(f"{where}: {lines} lines, at most {FILE_LINES}")
        for node in nodes[path]:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    found.append(f"{where}: {node.name} has {lines} lines, at most {FUNCTION_LINES}")
            if isinstance(node, ast.ClassDef) and is_settings(node.name, known):
                count = len(fields(node.name, known))
                if count > SETTINGS_FIELDS:
                    found.append(f"{where}: {node.name} has {count} fields, at most {SETTINGS_FIELDS}")
    return found


def test_the_house_keeps_its_sizes() -> None:
    assert violations(ROOT) == []


def settings_class(fields_: int, base: str = "Settings", name: str = "A") -> str:
    return f"class {name}({base}):\n" + "".join(f"    {name.lower()}{i}: int = 0\n" for i in range(fields_))


def function(lines: int, opening: str = "def f():") -> str:
    return opening + "\n" + "    pass\n" * (lines - 1)


@pytest.mark.parametrize(
    ("file", "code", "reason"),
    [
        ("mixdpo_ray/a.py", "\n" * 301, "301 lines"),
        ("tests/a.py", "\n" * 301, "301 lines"),
        ("jobs/a.py", function(61), "f has 61 lines"),
        ("mixdpo_ray/a.py", function(61, "async def f():"), "f has 61 lines"),
        ("mixdpo_ray/a.py", "class A:\n    " + function(61).replace("\n", "\n    "), "f has 61 lines"),
        ("mixdpo_ray/a.py", settings_class(13), "A has 13 fields"),
        ("mixdpo_ray/a.py", settings_class(13, "settings.Settings"), "A has 13 fields"),
        ("mixdpo_ray/a.py", settings_class(7) + settings_class(6, "A", "B"), "B has 13 fields"),
        ("mixdpo_ray/pairs/utils.py", "", "a drawer"),
        ("mixdpo_ray/helpers/a.py", "", "a drawer"),
        ("jobs/common.py", "", "a drawer"),
        ("mixdpo_ray/text_utils.py", "", "a drawer"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, code: str, reason: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert any(reason in found for found in violations(tmp_path)), violations(tmp_path)


@pytest.mark.parametrize(
    "code",
    ["\n" * 300, function(60), settings_class(12) + "    limit: ClassVar[int] = 3\n", settings_class(13, "Window")],
)
def test_the_limits_themselves_are_allowed(tmp_path: Path, code: str) -> None:
    (tmp_path / "mixdpo_ray").mkdir()
    (tmp_path / "mixdpo_ray" / "commons.py").write_text(code)
    assert violations(tmp_path) == []
