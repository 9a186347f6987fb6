"""Imports point one way, heavy libraries are imported where they are used, and importing the package does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A room imports only rooms above it
ROOMS = (
    "errors",
    "wording",
    "settings",
    "checksums",
    "storage",
    "pages",
    "bar",
    "intervals",
    "benchmarks",
    "objectives",
    "curriculum",
    "pairs",
    "tables",
    "tracking",
    "training",
    "difficulty",
    "playground",
    "raters",
    "recipe",
    "cluster",
    "judging",
    "scoring",
    "curation",
    "preparation",
    "sampling",
    "judges",
    "rating",
    "evaluation",
    "runs",
    "search",
    "comparison",
    "iteration",
    "doctor",
    "jobs",
)
WITH_RAY = ROOMS[ROOMS.index("cluster") :]
WITHOUT_RAY = (  # parts of those rooms
    "search.report",
    *(f"search.{name}" for name in ("space", "study", "journal", "samplers", "margins", "trials", "check")),
    *(f"comparison.{name}" for name in ("arms", "results", "table", "picture")),
    *(f"judging.{name}" for name in ("question", "reply", "key", "pacing", "budget", "attempt", "client")),
    *(f"judging.{name}" for name in ("reply_store", "asking", "estimate")),
    "doctor.format",
)
LIGHT = (  # what reads a recipe: help and refusals wait for nothing
    *("errors", "wording", "settings", "checksums", "storage", "objectives", "curriculum", "difficulty", "recipe"),
    *("benchmarks", "jobs", "playground.settings", "raters"),
)
ON_GPUS = ("mixdpo_ray.training.fused_logps",)  # needs triton, which only torch for GPUs brings
SCRIPTS = ("jobs", "mixdpo_ray.cluster.fork_client")  # what is run by its path
HEAVY = ("torch", "pyarrow", "pandas", "optuna", "ray")
INSIDE_FUNCTIONS = (
    *("transformers", "plotly", "optuna.visualization", "deepspeed", "peft", "matplotlib"),
    *("tensorboard", "torch.utils.tensorboard", "lm_eval", "ray.data.llm", "vllm"),
    *("wandb", "mlflow", "trackio", "PIL"),
)
OUTSIDE_THE_PACKAGE = ("trl", "accelerate")  # the yardsticks that we are compared with


def within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


def room_of(module: str) -> str | None:
    """The entry of ROOMS that a dotted name belongs to; None for the package itself and for other people's modules."""
    inner = inside(module)
    ours = inner != module or within(module, ("jobs",))
    return next((name for name in ROOMS if ours and within(inner, (name,))), None)


def inside(module: str) -> str:
    return module.removeprefix("mixdpo_ray.")


def imported(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """Full dotted names of what an import statement asks for; for `from a import b` both a and a.b may be modules."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    origin = node.module or ""
    if node.level:
        origin = ".".join(
            [*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [node.module])]
        )
    return [origin, *(f"{origin}.{alias.name}" for alias in node.names)]


def imports(tree: ast.Module, package: str) -> Iterator[tuple[int, list[str], bool]]:
    """Line, names, and whether it lies inside a function or is for type checkers only, so that it costs nothing."""

    def walk(node: ast.AST, deferred: bool) -> Iterator[tuple[int, list[str], bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child.lineno, imported(child, package), deferred
            for_types = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from walk(child, deferred or for_types or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return walk(tree, False)


def broken_by_one(module: str, target: str, deferred: bool) -> str | None:
    """The law that one import breaks."""
    room, other = room_of(module), room_of(target)
    if room and other and ROOMS.index(other) > ROOMS.index(room):
        return f"{room} must not import {other}"
    if within(target, ("ray",)) and (room not in WITH_RAY or within(inside(module), WITHOUT_RAY)):
        return "ray belongs to cluster/ and what stands on it"
    if within(target, INSIDE_FUNCTIONS) and not deferred:
        return f"{target} must be imported inside a function"
    if within(inside(module), LIGHT) and within(target, HEAVY) and not deferred:
        return f"{target} must be imported inside a function: a recipe is read without it"
    if within(target, OUTSIDE_THE_PACKAGE) and room != "jobs":
        return f"{target} must not be needed by the package"
    return None


def broken_by_statements(tree: ast.Module, script: bool) -> Iterator[tuple[int, str]]:
    """What would happen at import, or hide an import from this test."""
    for node in ast.walk(tree):
        guarded = ast.walk(node) if isinstance(node, ast.Try) else ()
        yield from ((inner.lineno, "an import inside try") for inner in guarded if isinstance(inner, ast.Import))
        yield from ((inner.lineno, "an import inside try") for inner in guarded if isinstance(inner, ast.ImportFrom))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            yield node.lineno, "a module imported by a string"
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
    )
    own_classes = {statement.name for statement in tree.body if isinstance(statement, ast.ClassDef)}
    for statement in tree.body:
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        condition = ast.unparse(statement.test) if isinstance(statement, ast.If) else ""
        harmless = condition.endswith("TYPE_CHECKING") or (script and condition == "__name__ == '__main__'")
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            harmless = ast.unparse(statement.value.func).split(".")[0] in own_classes  # finishes a class of this file
        if not (docstring or harmless or isinstance(statement, allowed)):
            yield statement.lineno, "a statement that acts at import"


def module_of(where: Path) -> str:
    return ".".join(where.with_suffix("").parts).removesuffix(".__init__")


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted([*root.glob("mixdpo_ray/**/*.py"), *root.glob("jobs/**/*.py")]):
        where = path.relative_to(root)
        module = module_of(where)
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        tree = ast.parse(path.read_text("utf-8"))
        if module != "mixdpo_ray" and room_of(module) is None:
            found.append(f"{where}: no room of ROOMS")
        for line, targets, deferred in imports(tree, package):
            reasons = {reason for target in targets if (reason := broken_by_one(module, target, deferred))}
            found += [f"{where}:{line}: {reason}" for reason in sorted(reasons)]
        found += [f"{where}:{line}: {reason}" for line, reason in broken_by_statements(tree, within(module, SCRIPTS))]
    return found


def test_the_house_keeps_its_laws_of_imports() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "code", "reason"),
    [
        ("objectives/dpo.py", "from mixdpo_ray.pairs.pair import Pair", "objectives must not import pairs"),
        ("objectives/dpo.py", "from mixdpo_ray import curriculum", "objectives must not import curriculum"),
        ("curriculum/plan.py", "from ..training import step", "curriculum must not import training"),
        ("training/loop.py", "import mixdpo_ray.cluster.connect", "training must not import cluster"),
        ("recipe/recipe.py", "from mixdpo_ray.runs import train", "recipe must not import runs"),
        ("playground/prompts.py", "from mixdpo_ray.recipe.recipe import Recipe", "playground must not import recipe"),
        ("cluster/nodes.py", "from jobs import train", "cluster must not import jobs"),
        ("training/loop.py", "def f():\n    import ray.train", "ray belongs to"),
        ("recipe/cluster.py", "from ray import data", "ray belongs to"),
        ("search/report/page.py", "import ray", "ray belongs to"),
        ("comparison/arms.py", "def f():\n    import ray", "ray belongs to"),
        ("__init__.py", "import ray", "ray belongs to"),
        ("training/engine.py", "import deepspeed", "deepspeed must be imported inside a function"),
        ("training/model.py", "class A:\n    from peft import LoraConfig", "peft must be imported inside a function"),
        ("training/model.py", "from transformers import AutoModel", "transformers must be imported inside a function"),
        ("objectives/dpo.py", "import torch", "torch must be imported inside a function: a recipe is read without it"),
        ("storage.py", "import pyarrow.fs as pafs", "pyarrow.fs must be imported inside a function: a recipe is read"),
        ("pairs/report.py", "import matplotlib.pyplot as plt", "matplotlib.pyplot must be imported inside"),
        ("runs/train.py", "from torch.utils import tensorboard", "tensorboard must be imported inside"),
        ("training/loop.py", "def f():\n    import trl", "trl must not be needed"),
        ("training/model.py", "try:\n    import peft\nexcept ImportError:\n    pass", "an import inside try"),
        ("training/model.py", "def f():\n    return __import__('ray')", "a module imported by a string"),
        ("storage.py", "import os\nos.environ['A'] = '1'\nprint('hello')", "a statement that acts at import"),
        ("storage.py", "if True:\n    A = 1", "a statement that acts at import"),
        ("trainer.py", "A = 1", "no room of ROOMS"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, code: str, reason: str) -> None:
    path = tmp_path / "mixdpo_ray" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert any(reason in found for found in violations(tmp_path)), violations(tmp_path)


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("mixdpo_ray/recipe/recipe.py", "from mixdpo_ray.recipe.cluster import ClusterSettings"),
        ("mixdpo_ray/curriculum/settings.py", "from mixdpo_ray.objectives.sft_weights import SftNorm"),
        ("mixdpo_ray/runs/train.py", "import ray.train\nfrom mixdpo_ray.recipe.cluster import ClusterSettings"),
        ("mixdpo_ray/training/engine.py", "def f():\n    import deepspeed"),
        ("mixdpo_ray/training/engine.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import deepspeed"),
        ("mixdpo_ray/training/rays.py", "import raytracer, torch"),
        ("jobs/train.py", "from mixdpo_ray.runs.train import train\nif __name__ == '__main__':\n    train()"),
        ("jobs/bench.py", "def f():\n    import trl"),
        ("mixdpo_ray/recipe/file.py", "class Loader:\n    pass\n\n\nLoader.add_resolver(1)"),
    ],
)
def test_what_the_laws_allow_is_let_through(tmp_path: Path, file: str, code: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert violations(tmp_path) == []


def test_importing_everything_below_the_cluster_and_reading_a_recipe_does_nothing_else(tmp_path: Path) -> None:
    """In a fresh process, for every module that must not know ray; libraries come first, as they act at will."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "mixdpo_ray").glob("**/*.py"))
    ]
    modules = [one for one in modules if room_of(one) not in WITH_RAY or within(inside(one), WITHOUT_RAY)]
    modules = [one for one in modules if one not in ON_GPUS]
    program = f"""
import importlib, logging, os, random, signal, sys, threading, warnings
import rich.live, torch, transformers.modeling_utils  # what they do to the process when imported is their own affair
def world():
    return dict(environment=dict(os.environ), warnings=warnings.filters[:], random=random.getstate(),
                logging=(logging.root.level, logging.root.handlers[:]), threads=threading.active_count(),
                torch=(torch.initial_seed(), torch.get_num_threads(), torch.get_default_dtype()),
                signals=(signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)), files=os.listdir())
before = world()
for module in {modules!r}:
    importlib.import_module(module)
importlib.import_module("mixdpo_ray.recipe.file").load_recipe({str(ROOT / "jobs" / "recipes" / "playground.yaml")!r})
after = world()
changed = [(part, before[part], after[part]) for part in before if before[part] != after[part]]
assert not changed, changed
heavy = ("ray", "deepspeed", "peft", "matplotlib", "tensorboard", "trl", "wandb", "mlflow")
heavy = [name for name in heavy if name in sys.modules]
assert not heavy, f"imported at import time: {{heavy}}"
"""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (ran.stdout, ran.stderr) == ("", "")


def test_each_kind_of_work_imports_no_more_than_it_needs() -> None:
    """In one process, from the lightest to the heaviest: each kind may import what those before it may not."""
    kinds = [
        (["recipe.inputs", "runs.clean"], ["ray", "torch"]),
        # also in workers that read and convert
        (["cluster.stream", "cluster.preflight", "preparation.prepare", "preparation.derive"], ["torch"]),
        (
            ["runs.train", "search.tune", "comparison.compare", "preparation.score", "doctor.run"],
            ["transformers", "deepspeed", "matplotlib"],
        ),
    ]
    program = f"""
import importlib, sys
for modules, others in {kinds!r}:
    for module in modules:
        importlib.import_module(f"mixdpo_ray.{{module}}")
        imported = [name for name in (*others, "transformers", "matplotlib", "plotly") if name in sys.modules]
        assert not imported, f"{{module}} imports {{imported}}"
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
