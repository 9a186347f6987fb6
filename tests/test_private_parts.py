"""What other libraries do not promise is used in few files, each of which says why."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "mixdpo_ray"
ALLOWED = {
    "cluster/ray_internals.py": {
        "ray._private", "ray._private.parameter", "ray._private.runtime_env", "ray._private.state",
        "_dir_travel", "_get_excludes",
    },
    "cluster/ray_train_internals.py": {
        "ray.data._internal.cluster_autoscaler", "ray.train.v2._internal.callbacks",
        "ray.train.v2._internal.callbacks.placement_group_callback", "ray.train.v2._internal.exceptions",
    },
    "preparation/sources.py": {"_fingerprint"},  # datasets: what names a table of the Hub's
    "search/study.py": {"_trial_id"},  # optuna: a frozen trial is ended through a live one, which is made by it
    # transformers: whether a model asks its registry for attention, and which it has; torch: attention of single spans
    "training/attention.py": {
        "_supports_attention_backend", "_attn_implementation", "_flash_attention_forward",
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward",
    },
    "training/engine.py": {"_zero3_consolidated_16bit_state_dict"},  # deepspeed: weights that are sharded
    "training/flat_parameters.py": {"_hp_mapping"},  # deepspeed: which part of a matrix a rank holds, for Muon
    "training/gradient_guard.py": {"_global_grad_norm"},  # deepspeed: the norm before clipping, told nowhere else
    "training/isolation.py": {"_PartitionedParameterCoordinator__params_to_release"},  # deepspeed: it keeps old models
    "training/liger.py": {"_apply_liger_kernel_to_instance"},  # liger_kernel: the way that transformers itself takes
    "training/logps.py": {"_modules"},  # torch: a copy of the model without its head
    "tracking/trackio_tracker.py": {"_next_step"},  # trackio: how far a run has come, wherever it is kept
    "training/model_files.py": {"_commit_hash"},  # transformers: which revision of a Hub's model was read
    # torch and deepspeed: what the engine's own forward sets; a model in shards is called without it
    "training/sharded_model.py": {"_parameters", "_in_forward"},
}  # fmt: skip
# Python's own, which it documents
DOCUMENTED = {"_exit", "_current_frames"}
PRIVATE = re.compile(r"_[^_].*")


def trees(folder: Path) -> dict[str, ast.Module]:
    return {f"{path.relative_to(folder)}": ast.parse(path.read_text()) for path in sorted(folder.rglob("*.py"))}


def own_names(tree: ast.Module) -> Iterator[str]:
    """What the package's classes define: methods, fields, and attributes that they set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node.value):
            yield node.attr
        elif isinstance(node, ast.ClassDef):
            for statement in node.body:
                if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield statement.name
                elif isinstance(statement, ast.Assign | ast.AnnAssign):
                    yield ast.unparse(statement).split(":")[0].split("=")[0].strip()


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def private_parts(tree: ast.Module, ours: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr) and node.attr not in ours | DOCUMENTED:
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("mixdpo_ray"):
            if any(PRIVATE.fullmatch(part) for part in node.module.split(".") if part != "__future__"):
                yield node.module
            yield from (alias.name for alias in node.names if PRIVATE.fullmatch(alias.name))
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names if any(map(PRIVATE.fullmatch, one.name.split("."))))


def used(folder: Path) -> dict[str, set[str]]:
    parsed = trees(folder)
    ours = {name for tree in parsed.values() for name in own_names(tree)}
    found: dict[str, set[str]] = defaultdict(set)
    for where, tree in parsed.items():
        for name in private_parts(tree, ours):
            found[where].add(name)
    return dict(found)


def test_private_parts_of_other_libraries_stand_in_the_files_that_say_why() -> None:
    assert used(PACKAGE) == ALLOWED


def test_a_private_part_is_found_however_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import os, ray._raylet\nfrom ray._private.state import state\n")
    (tmp_path / "b.py").write_text("class A(B):\n    def f(self):\n        return self._of_b, self._own\n")
    (tmp_path / "c.py").write_text("class C:\n    def __init__(self):\n        self._own = 1\n        os._exit(0)\n")
    assert used(tmp_path) == {"a.py": {"ray._raylet", "ray._private.state"}, "b.py": {"_of_b"}}
