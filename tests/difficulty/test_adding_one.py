"""A new difficulty metric is one file and one key, be it a formula or one that trains models: both are computed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixdpo_ray.playground.sample import write_pairs, write_tiny_model

ROOT = Path(__file__).parents[2]
PLAIN = '''
"""A made-up metric."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.difficulty.metric import Column, Formula, MetricInputs


class LengthGap(Formula):
    """So much longer is the rejected answer"""

    needs: ClassVar[str] = "nothing"

    weight: float = Field(1.0, gt=0, description="Of the chosen answer's length")

    def values(self, facts: MetricInputs) -> Column:
        return facts.rejected_length - self.weight * facts.chosen_length
'''
TRAINS = '''
"""A made-up metric that trains."""

from typing import ClassVar

import numpy as np

from mixdpo_ray.difficulty.metric import Column, HalfTraining, Metric, MetricContext


class Forgotten(Metric):
    """The lowest log-prob of the chosen answer under models that have not seen it"""

    needs: ClassVar[str] = "short training runs"
    trains: ClassVar[bool] = True

    def compute(self, context: MetricContext) -> Column:
        lowest = np.full(len(context.train), np.inf)
        training = HalfTraining(
            seeds=(5,), beta=0.1, learning_rate=1e-3, num_train_epochs=1, global_batch_size=8, lora=None
        )
        for unseen in context.cross_fit(training):
            lowest[unseen.positions] = np.minimum(lowest[unseen.positions], unseen.trained.chosen)
        return lowest
'''
USED = """
import json, sys
from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.scoring.metric_columns import computed_columns

recipe = load_recipe(sys.argv[1], sys.argv[2:])
assert [recipe.trains_for([name]) for name in ("length_gap", "bees", "forgotten")] == [False, True, True]
with connected(recipe.cluster):
    table = prepared_table(recipe)
    columns = computed_columns(recipe, table, list(recipe.metrics))
index = table.index("train")
gap = (index.rejected_length - 2.0 * index.chosen_length).tolist()
print(json.dumps({"gap": gap, **{name: splits["train"].tolist() for name, splits in columns.items()}}))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with two files and two keys more."""
    copy = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "mixdpo_ray", copy / "mixdpo_ray", ignore=shutil.ignore_patterns("__pycache__"))
    folder = copy / "mixdpo_ray" / "difficulty"
    (folder / "length_gap.py").write_text(PLAIN.lstrip())
    (folder / "forgotten.py").write_text(TRAINS.lstrip())
    names = {"length_gap": "LengthGap", "forgotten": "Forgotten"}
    lines = "".join(f"from mixdpo_ray.difficulty.{file} import {kind}\n" for file, kind in names.items())
    keys = "".join(f'    "{name}": {kind},\n' for name, kind in names.items())
    table = folder / "__init__.py"
    text = table.read_text().replace("\nMETRICS:", f"{lines}\nMETRICS:")
    table.write_text(text.replace('    "length": Length,\n', f'    "length": Length,\n{keys}'))
    write_tiny_model(copy / "model")
    write_pairs(copy / "pairs.jsonl", 40)
    (copy / "recipe.yaml").write_text(
        f"""
model: {{path: {copy}/model, dtype: float32}}
data: {{source: {{path: {copy}/pairs.jsonl}}, heldout: {{fraction: 0.1}}, max_prompt_length: 16, max_length: 64}}
train: {{global_batch_size: 16, per_device_train_batch_size: 8}}
cluster: {{reference_workers: 1, num_workers: 1, use_gpu: false}}
output: {{storage_path: {copy}/out}}
metrics: {{length_gap: {{weight: 2.0}}, forgotten: , bees: {{external: length_gap, implicit: forgotten}}}}
"""
    )
    return copy


@pytest.mark.cluster
def test_both_are_computed_named_and_combined_and_their_names_are_known(checkout: Path) -> None:
    command = [sys.executable, "-c", USED, "recipe.yaml"]
    environment = {**os.environ, "PYTHONPATH": str(checkout)}

    def run(*overrides: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *overrides], cwd=checkout, env=environment, capture_output=True, text=True, check=False
        )

    done = run()
    assert done.returncode == 0, done.stderr
    columns = json.loads(done.stdout.splitlines()[-1])
    assert columns["length_gap"] == columns["gap"]
    assert all(value < 0 for value in columns["forgotten"])
    assert len(columns["forgotten"]) == 36
    assert all(0 <= value <= 1 for value in columns["bees"])
    stores = [json.loads(file.read_text())["facts"] for file in (checkout / "out" / "scores").glob("*/manifest.json")]
    assert [store["metric"] for store in stores] == ["forgotten", "forgotten"]

    assert "unknown metric 'forgoten'; did you mean forgotten?" in run("metrics={forgoten: }").stderr
