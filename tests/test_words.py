"""Words of the house: a public name is defined once, and a docstring does not begin in the middle of a sentence."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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


def test_one_file_knows_the_engine_another_its_memory_and_a_third_its_attention() -> None:
    known = ["training/engine.py", "training/memory_estimate.py", "training/sequence_ranks.py"]
    assert files_that_name_the_engine() == known


@dataclass(frozen=True)
class FixedWord:
    """A word that has one meaning, and where it may not stand: in names and, unless said otherwise, in docstrings."""

    word: str
    rooms: tuple[str, ...]  # all where empty
    means: str
    names_only: bool = False
    let: tuple[str, ...] = ()  # docstrings' phrases, and files


FIXED = (
    FixedWord(
        "worlds?", ("playground", "comparison", "recipe", "search", "doctor", "pairs", "preparation"),
        "the ranks of a training; the toy is a playground",
        let=("was called a world", "recipe/gone.py"),
    ),
    FixedWord("places?", (), "nothing: position, row, folder, location, origin", let=("in place",)),
    FixedWord("placed", (), "nothing: with_positions", names_only=True),
    FixedWord("seen", ("objectives",), "nothing: a step's statistics are pairs.step", names_only=True),
    FixedWord("stages?", ("preparation",), "a part of a curriculum; of a conversion: ConversionSettings"),
    FixedWord(
        "memory", ("objectives", "training"), "bytes; an objective keeps an ObjectiveState", names_only=True,
        let=("training/checkpoints.py", "training/checkpoint_files.py"),  # the key in manifests of all versions
    ),
    FixedWord("trials?", ("doctor",), "one point of a search", let=("tune",)),
    FixedWord("scores?", ("playground",), "a number of a pair; an answer has a quality", names_only=True),
)  # fmt: skip


def names_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute):
            yield node.attr


def words_of(name: str) -> list[str]:
    """stage_job and StageJob are two words each."""
    return re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower().strip("_").split("_")


def docstrings(tree: ast.Module) -> Iterator[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)
    yield from (text for node in ast.walk(tree) if isinstance(node, kinds) and (text := ast.get_docstring(node)))


def misused(fixed: FixedWord, folder: Path = PACKAGE) -> list[str]:
    found = []
    for where, tree in modules(folder):
        if where in fixed.let or (fixed.rooms and not where.startswith(tuple(f"{room}/" for room in fixed.rooms))):
            continue
        whole = fixed.names_only  # a name of several words says of which kind it is: peak_memory
        for name in dict.fromkeys(names_in(tree)):
            words = ["_".join(words_of(name))] if whole else words_of(name)
            found += [f"{where}: {name}" for word in words if re.fullmatch(fixed.word, word)]
        for text in () if fixed.names_only else docstrings(tree):
            rest = re.sub("|".join(fixed.let) or "$^", "", text)
            found += [f"{where}: {match}" for match in re.findall(rf"(?i).*\b{fixed.word}\b.*", rest)]
    return found


@pytest.mark.parametrize("fixed", FIXED, ids=lambda fixed: fixed.word)
def test_a_fixed_word_has_one_meaning(fixed: FixedWord) -> None:
    assert misused(fixed) == [], f"{fixed.word} means {fixed.means}"


def test_a_word_of_two_meanings_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('def placement(thePlace):\n    """Swap in place, at another place."""\n')
    assert misused(FixedWord("places?", (), "", let=("in place",)), tmp_path) == [
        "a.py: thePlace",
        "a.py: Swap , at another place.",
    ]
