"""No file imports itself through others: whoever reads one may read downwards and stop."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.test_imports import ROOT, imports, module_of


def circle_of_files(root: Path) -> list[str]:
    """Modules that import each other in a circle, also inside functions and for type checkers."""
    trees = {module_of(path.relative_to(root)): path for path in root.glob("mixdpo_ray/**/*.py")}
    needs: dict[str, set[str]] = {}
    for module, path in trees.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        targets = {target for _, names, _ in imports(ast.parse(path.read_text("utf-8")), package) for target in names}
        needs[module] = {target for target in targets if target in trees and target != module}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_file_imports_itself_through_others() -> None:
    assert circle_of_files(ROOT) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "mixdpo_ray" / "pairs"
    folder.mkdir(parents=True)
    (folder / "one.py").write_text("from mixdpo_ray.pairs.other import b\n")
    (folder / "other.py").write_text("def b():\n    from mixdpo_ray.pairs import one\n")
    assert set(circle_of_files(tmp_path)) == {"mixdpo_ray.pairs.one", "mixdpo_ray.pairs.other"}
