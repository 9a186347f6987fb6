"""Metrics are computed once for each pair, whatever the order, and a death costs what was not yet written down."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from mixdpo_ray.curriculum.halves import Half
from mixdpo_ray.errors import ModelError, NonFiniteError, RecipeError
from mixdpo_ray.playground.sample import write_pairs, write_tiny_model
from mixdpo_ray.preparation.prepare import prepared_table
from mixdpo_ray.preparation.score import score_pairs
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.scoring.metric_scores import metric_columns, metric_identity
from mixdpo_ray.tables.keyed_table import KeyedTable
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import ReferenceTable

ROOT = Path(__file__).parents[2]
PAIRS = 100
pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_ray")]

KILLED = '''
import os, signal, sys
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.preparation.score import score_pairs
from mixdpo_ray.tables.keyed_table import KeyedTable
from mixdpo_ray.recipe.file import load_recipe

recipe, metric, appends = sys.argv[1], sys.argv[2], int(sys.argv[3])
actor_pool.PAIRS_PER_BATCH, actor_pool.PAIRS_PER_PART = 4, 1
done, folders, append = 0, set(), KeyedTable.append

def counted(table, rows):
    """Before so many appends are exceeded, or a second folder of this metric gets its first rows."""
    global done
    if table.manifest.facts.get("metric") == metric:
        folders.add(table.folder)
        if done == appends or len(folders) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
    append(table, rows)

KeyedTable.append = counted
recipe = load_recipe(recipe, sys.argv[4:])
with connected(recipe.cluster):
    score_pairs(recipe)
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scoring")
    write_tiny_model(folder / "model")
    write_tiny_model(folder / "other", seed=1)
    write_pairs(folder / "pairs.jsonl", PAIRS)
    (folder / "recipe.yaml").write_text(
        f"""
model: {{path: {folder}/model, dtype: float32}}
data: {{source: {{path: {folder}/pairs.jsonl}}, heldout: {{fraction: 0.1}}, max_prompt_length: 16, max_length: 64}}
train: {{global_batch_size: 16, per_device_train_batch_size: 8}}
cluster: {{reference_workers: 1, num_workers: 1, use_gpu: false}}
output: {{storage_path: {folder}/out}}
"""
    )
    return folder


def recipe(world: Path, *overrides: str) -> Recipe:
    return load_recipe(str(world / "recipe.yaml"), overrides)


def stores(world: Path, metric: str) -> list[Path]:
    """Folders of a metric's scores."""
    found = (world / "out" / "scores").glob("*/manifest.json")
    return [path.parent for path in found if json.loads(path.read_text())["facts"]["metric"] == metric]


def by_pair(table: PreparedTable, columns: dict[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    return {
        pair_id: float(value)
        for split, values in columns.items()
        for pair_id, value in zip(table.index(split).pair_id, values, strict=True)
    }


def naive_logp(model: LlamaForCausalLM, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logps = model(torch.tensor([prompt + answer])).logits[0].float().log_softmax(-1)
    return float(sum(logps[len(prompt) + place - 1, token] for place, token in enumerate(answer)))


def killed(world: Path, metric: str, appends: int, *overrides: str) -> None:
    """A driver of its own, on the tests' Ray."""
    command = [sys.executable, "-c", KILLED, str(world / "recipe.yaml"), metric, str(appends), *overrides]
    there = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "RAY_AUTH_MODE": "token"}
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **there}, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_two_metrics_of_one_table_are_computed_once_and_another_order_computes_nothing(world: Path) -> None:
    metrics = f"metrics={{implicit_margin: {{model: {world}/other}}, perplexity: }}"
    first = recipe(world, metrics)
    table = prepared_table(first)
    columns = metric_columns(first, table, ["perplexity", "implicit_margin", "length"])
    assert [len(columns["perplexity"][split]) for split in ("train", "eval")] == [table.rows("train"), 10]

    models = [LlamaForCausalLM.from_pretrained(world / name, dtype=torch.float32).eval() for name in ("other", "model")]
    rows = table.read("train", np.array([0, 7])).to_pylist()
    for place, row in zip((0, 7), rows, strict=True):
        prompt, chosen, rejected = (row[f"{part}_ids"] for part in ("prompt", "chosen", "rejected"))
        (c, rc), (r, rr) = ([naive_logp(model, prompt, ids) for model in models] for ids in (chosen, rejected))
        assert columns["perplexity"]["train"][place] == pytest.approx(rc / len(chosen), rel=1e-4)
        assert columns["implicit_margin"]["train"][place] == pytest.approx((c - rc) - (r - rr), abs=1e-3)
        assert columns["length"]["train"][place] == -len(chosen)

    references = [ReferenceTable.open(str(path)) for path in (world / "out" / "reference").glob("[!.]*")]
    assert [(one.manifest.passes, one.manifest.pairs) for one in references] == [(1, PAIRS)] * 2
    other = recipe(world, metrics, "curriculum={order: ascending, seed: 7}", "objective.beta=0.5")
    reordered = prepared_table(other)
    assert list(reordered.index("train").pair_id) != list(table.index("train").pair_id)
    again = metric_columns(other, reordered, ["perplexity", "implicit_margin"])
    for name in ("perplexity", "implicit_margin"):
        assert by_pair(reordered, again[name]) == by_pair(table, columns[name])
    assert [ReferenceTable.open(one.folder).manifest for one in references] == [one.manifest for one in references]


def test_a_driver_that_was_killed_in_the_middle_continues_with_the_pairs_that_are_missing(world: Path) -> None:
    killed(world, "ches", 3, "metrics.ches=")
    (folder,) = stores(world, "ches")
    before = KeyedTable.open(str(folder)).manifest
    assert (len(before.parts), before.passes) == (3, 1)
    assert 0 < before.pairs < PAIRS

    settings = recipe(world, "metrics.ches=")
    table = prepared_table(settings)
    columns = metric_columns(settings, table, ["ches"])
    after = KeyedTable.open(str(folder)).manifest
    assert (after.pairs, after.passes) == (PAIRS, 2)
    assert after.parts[:3] == before.parts
    assert np.isfinite(columns["ches"]["train"]).all()

    sums = recipe(world, "metrics.ches.length_normalised=false")  # both are kept: another setting, nothing computed
    assert not np.array_equal(metric_columns(sums, table, ["ches"])["ches"]["train"], columns["ches"]["train"])
    assert KeyedTable.open(str(folder)).manifest == after


def test_validation_losses_are_those_of_models_that_have_not_seen_the_pair_and_no_training_is_repeated(
    world: Path,
) -> None:
    """Killed when the second training has ended and has scored nothing: it is not trained again, nor is the first."""
    metrics = "metrics={validation_loss: {seeds: 1, beta: 0.1, lora: null, learning_rate: 1e-3}}"
    killed(world, "validation_loss", 1000, metrics)
    first, second = sorted(stores(world, "validation_loss"), key=lambda path: (path / "training" / "model").exists())
    assert KeyedTable.open(str(first)).manifest.pairs == 55
    assert KeyedTable.open(str(second)).manifest.pairs == 0
    trained = LlamaForCausalLM.from_pretrained(second / "training" / "model", dtype=torch.float32).eval()
    logs = [(folder / "training" / "metrics.jsonl").read_bytes() for folder in (first, second)]

    settings = recipe(world, metrics)
    table = prepared_table(settings)
    values = metric_columns(settings, table, ["validation_loss"])["validation_loss"]["train"]
    assert [(folder / "training" / "metrics.jsonl").read_bytes() for folder in (first, second)] == logs
    assert not list(second.glob("training/model"))
    assert [ReferenceTable.open(str(folder)).manifest.passes for folder in (first, second)] == [1, 2]

    ids = table.index("train").pair_id
    halves = [{ids[row] for row in Half(42, number).positions(ids)} for number in (0, 1)]
    scored = set(ReferenceTable.open(str(second)).rows["pair_id"].to_pylist()) & set(ids)
    assert scored in halves

    start = LlamaForCausalLM.from_pretrained(world / "model", dtype=torch.float32).eval()
    for place in [row for row in range(len(ids)) if ids[row] in scored][:3]:
        (row,) = table.read("train", np.array([place])).to_pylist()
        chosen, rejected = (
            naive_logp(trained, row["prompt_ids"], row[f"{side}_ids"])
            - naive_logp(start, row["prompt_ids"], row[f"{side}_ids"])
            for side in ("chosen", "rejected")
        )
        assert values[place] == pytest.approx(-float(np.log1p(np.exp(-0.1 * (chosen - rejected)))), abs=1e-4)
        assert abs(values[place] + np.log(2)) > 1e-5  # the model has moved


def test_the_job_shows_how_far_metrics_agree_in_a_table_and_a_picture(world: Path) -> None:
    said = score_pairs(
        recipe(world, "metrics.perplexity=", "curriculum={difficulty: length, threshold: {hard_count: 4}}")
    )
    lines = said.describe().splitlines()
    assert lines[0].startswith("rank correlations of 3 metrics over 90 training pairs")
    assert [line.split()[:2] for line in lines[2:5]] == [["1", "rating_margin"], ["2", "length"], ["3", "perplexity"]]
    assert [line.split()[2 + number] for number, line in enumerate(lines[2:5])] == ["1.00"] * 3
    picture = Path(lines[5].removeprefix("picture: "))
    assert picture.parent == world / "out" / "scores"
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ("{ches: {model: /no/such/model}}", "metrics.ches.model '/no/such/model' is no folder; correct the path"),
        ("{perplexity: {model: ./nowhere}}", "metrics.perplexity.model './nowhere' is no folder; correct the path"),
        ("{reward_margin: {model: /no/rm}}", "metrics.reward_margin.model '/no/rm' is no folder; correct the path"),
    ],
)
def test_a_wrong_model_path_is_one_line(world: Path, metrics: str, expected: str) -> None:
    settings = recipe(world, f"metrics={metrics}")
    with pytest.raises(ModelError) as caught:
        metric_columns(settings, prepared_table(settings), list(settings.metrics))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_another_vocabulary_cannot_read_the_tokens(world: Path) -> None:
    write_tiny_model(world / "foreign", seed=2)
    vocabulary = world / "foreign" / "tokenizer.json"
    vocabulary.write_text(vocabulary.read_text().replace('"<unk>"', '"<unknown>"'))
    settings = recipe(world, f"metrics.implicit_margin={{model: {world}/foreign}}")
    with pytest.raises(ModelError, match=r"metrics\.implicit_margin\.model .* has another vocabulary than"):
        metric_columns(settings, prepared_table(settings), ["implicit_margin"])


def test_a_model_compared_with_a_copy_of_itself_is_refused(world: Path) -> None:
    write_tiny_model(world / "copy")
    settings = recipe(world, f"metrics.implicit_margin={{model: {world}/copy}}")
    with pytest.raises(ModelError, match="copy' is the very model that it is compared with: every pair would"):
        metric_columns(settings, prepared_table(settings), ["implicit_margin"])


def test_a_reward_that_is_no_number_is_refused_with_the_pair(world: Path) -> None:
    model = LlamaForSequenceClassification.from_pretrained(world / "model", num_labels=1)
    torch.nn.init.constant_(model.score.weight, torch.nan)
    model.save_pretrained(world / "broken")
    for file in (world / "model").glob("tokenizer*"):
        (world / "broken" / file.name).write_bytes(file.read_bytes())
    settings = recipe(world, f"metrics={{reward_margin: {{model: {world}/broken, dtype: float32}}}}")
    table = prepared_table(settings)
    with pytest.raises(NonFiniteError, match=r"reward_chosen of pair [0-9a-f]{32} and \d+ others is not finite"):
        metric_columns(settings, table, ["reward_margin"])
    (folder,) = stores(world, "reward_margin")
    assert KeyedTable.open(str(folder)).manifest.pairs == 0


def test_an_unknown_metric_is_a_mistake_of_the_recipe(world: Path) -> None:
    settings = recipe(world)
    with pytest.raises(RecipeError, match="unknown metric 'chess'; did you mean ches"):
        metric_columns(settings, prepared_table(settings), ["chess"])


def test_other_weights_or_other_settings_have_another_identity(world: Path) -> None:
    def identity(*overrides: str) -> dict[str, Any]:
        return metric_identity(recipe(world, *overrides), "alignment_potential")

    base = "metrics={alignment_potential: {external: rating_margin}}"
    assert identity(base) == identity(base, "output.name=other", "curriculum.seed=3", "objective.beta=0.3")
    assert set(identity(base)) == {"rating_margin", "alignment_potential"}
    changed = [
        "metrics.alignment_potential.weight=2.5",
        f"metrics.alignment_potential.model={world}/other",
        "model.dtype=bfloat16",
    ]
    assert all(identity(base, change) != identity(base) for change in changed)
