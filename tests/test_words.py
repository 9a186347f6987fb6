"""Words of the house: a public name is defined once, and a docstring does not begin in the middle of a sentence."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mixdpo_ray"
PREPOSITIONS = {
    "of",
    "and",
    "or",
    "by",
    "for",
    "from",
    "in",
    "on",
    "to",
    "with",
    "without",
    "at",
    "as",
    "where",
    "after",
}


def modules(folder: Path = PACKAGE) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield str(path.relative_to(folder)), ast.parse(path.read_text("utf-8"))


def public_names(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, ast.Assign):
            names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            names = [statement.target.id]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def defined_twice(folder: Path = PACKAGE) -> dict[str, list[str]]:
    places: dict[str, list[str]] = defaultdict(list)
    for where, tree in modules(folder):
        for name in public_names(tree):
            places[name].append(where)
    return {name: found for name, found in places.items() if len(found) > 1}


def headless(folder: Path = PACKAGE) -> list[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    return [
        f"{where}: {text.splitlines()[0]}"
        for where, tree in modules(folder)
        for node in ast.walk(tree)
        if isinstance(node, kinds) and (text := ast.get_docstring(node)) and text.split()[0].lower() in PREPOSITIONS
    ]


def test_no_public_name_is_defined_twice() -> None:
    assert defined_twice() == {}


def test_no_docstring_begins_with_a_preposition() -> None:
    assert headless() == []


def test_a_violation_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('X = 1\n\n\ndef f():\n    """Of the other."""\n')
    (tmp_path / "b.py").write_text("X: int = 2\n_Y = 1\n")
    (tmp_path / "c.py").write_text("_Y = 1\n")
    assert defined_twice(tmp_path) == {"X": ["a.py", "b.py"]}
    assert headless(tmp_path) == ["a.py: Of the other."]


def files_that_name_the_engine(folder: Path = PACKAGE) -> list[str]:
    """Its library by its name; a recipe's section `deepspeed` is not it."""
    named = re.compile(r"\bDeepSpeed\b|import deepspeed|from deepspeed")
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*.py")) if named.search(path.read_text())]


def test_one_file_knows_the_engine_and_another_its_memory() -> None:
    assert files_that_name_the_engine() == ["training/engine.py", "training/memory_estimate.py"]
