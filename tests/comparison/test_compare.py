"""A comparison in a tiny playground, as a person runs it: what it leaves, and what it does not do twice."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from mixdpo_ray.comparison.compare import compare
from mixdpo_ray.errors import RunConflictError
from mixdpo_ray.playground.build import PlaygroundFolder
from mixdpo_ray.recipe.file import load_recipe
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.clean import survey_storage
from mixdpo_ray.search.space import with_settings

pytestmark = pytest.mark.cluster

RECIPE = Path(__file__).parents[2] / "jobs" / "recipes" / "playground-compare.yaml"
ARMS = {
    "shuffled": {"curriculum.mode": "sorted_dpo", "curriculum.order": "shuffled"},
    "broken": {"train.optimizer.learning_rate": 1e30},
    "dropped": {"curriculum.mode": "discard_hard"},
    "mixdpo": {},
}
TRAINED = [name for name in ARMS if name != "broken"]


def tiny(folder: Path, **compare_: Any) -> Recipe:
    """130 pairs or so and steps of 32; in the first playground a quarter of them is hard."""
    settings = {
        "output.storage_path": str(folder),
        "output.name": "small",
        "train.global_batch_size": 32,
        "train.per_device_train_batch_size": 32,
        "curriculum.threshold.hard_fraction": 0.3,
        "compare.playground": {"base_steps": 20, "base_batch": 16, "prompts": 130, "judged": 20},
        "compare.answers_each": 2,
        "compare.metric": "judge/win_rate",
        "answers.judge.engine": "playground",
        "answers.sample.answers_each": 2,
        "answers.sample.decoding.max_new_tokens": 14,
        "compare.seeds": [0, 1],
        "compare.arms": ARMS,
        "compare.against": "shuffled",
        **{f"compare.{name}": value for name, value in compare_.items()},
    }
    return with_settings(load_recipe(str(RECIPE)), settings)


def table(folder: Path) -> dict[tuple[str, int], dict[str, str]]:
    with (folder / "comparisons" / "small" / "results.csv").open() as file:
        return {(row["arm"], int(row["seed"])): row for row in csv.DictReader(file)}


def summaries(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / "comparisons" / "small").glob("*/seed-*/summary.json")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def said(folder: Path) -> str:
    return compare(tiny(folder)).describe()


def test_every_arm_and_seed_has_a_row_and_the_broken_one_stops_nobody(said: str, folder: Path) -> None:
    rows = table(folder)
    assert set(rows) == {(name, seed) for name in ("base model", *ARMS) for seed in (0, 1)}
    assert {rows[name, seed]["state"] for name in ("base model", *TRAINED) for seed in (0, 1)} == {"ended"}
    assert {rows["broken", seed]["state"] for seed in (0, 1)} == {"failed"}
    assert "is not finite" in rows["broken", 0]["failure"]
    for name in TRAINED:
        assert 0 <= float(rows[name, 0]["judge/win_rate"]) <= 1
        assert 1 <= float(rows[name, 0]["quality"]) <= 10
        assert 0 <= float(rows[name, 0]["eval_rewards/accuracies"]) <= 1


def test_the_table_is_printed_with_what_failed_and_how_long_it_took(said: str, folder: Path) -> None:
    lines = said.splitlines()
    assert lines[0].startswith("small: 8 of 8 runs ended, ")  # four arms, two seeds; nothing is run untrained
    assert "win rate: share of prompts answered better than by the untrained model; ties count half." in lines
    assert [line.split("|")[1].strip() for line in lines[4:9]] == ["base model", *ARMS]
    assert "broken, seed 1 failed: " in said
    comparison = folder / "comparisons" / "small"
    assert (comparison / "table.md").read_text().splitlines()[2:9] == lines[2:9]
    assert (comparison / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_base_model_is_judged_as_it_is(said: str, folder: Path) -> None:
    for seed in (0, 1):
        playground = tiny(folder).compare.playground
        assert playground is not None
        made = PlaygroundFolder(folder / "worlds" / f"seed-{seed}", playground.model_copy(update={"seed": seed}))
        assert made.exists
        row = table(folder)["base model", seed]
        assert float(row["win_rate"]) == 0.5
        assert float(row["judge/win_rate"]) == 0.5
        assert float(row["eval_logps/chosen_drift"]) == pytest.approx(0, abs=1e-4)


def test_arms_that_are_identical_up_to_the_switch_share_their_first_stage(said: str, folder: Path) -> None:
    """mixdpo and dropped; once in each playground."""
    comparison = folder / "comparisons" / "small"
    stages = list((comparison / "stages").iterdir())
    assert len(stages) == 2
    for name in ("dropped", "mixdpo"):
        (metrics,) = comparison.glob(f"{name}-*/seed-0/metrics.jsonl")
        assert metrics.read_text().count('"stage": "easy"') == 3
    assert not list(comparison.glob("**/checkpoints"))
    assert not list(comparison.glob("**/model"))
    assert not (comparison / "ray").exists()


def test_what_a_comparison_uses_is_not_swept_away(said: str, folder: Path) -> None:
    assert [item.path for item in survey_storage(str(folder)) if item.unused] == []
    used = [item for item in survey_storage(str(folder)) if not item.path.startswith(str(folder / "samples"))]
    assert {user for item in used for user in item.used_by} == {"comparison small"}


def test_the_same_command_trains_nothing_and_another_arm_that_arm_alone(said: str, folder: Path) -> None:
    before = summaries(folder)
    assert compare(tiny(folder)).describe().splitlines()[2:] == said.splitlines()[2:]
    assert summaries(folder) == before
    more = {**ARMS, "slow": {"train.schedule.stage2_lr_ratio": 0.01}}
    compare(tiny(folder, arms=more))
    after = summaries(folder)
    assert {path: after[path] for path in before} == before
    assert {path.parts[-3].rpartition("-")[0] for path in set(after) - set(before)} == {"slow"}
    assert table(folder)["slow", 1]["state"] == "ended"


def test_an_arm_whose_settings_changed_is_refused_with_the_difference(said: str, folder: Path) -> None:
    changed = {**ARMS, "mixdpo": {"objective.beta": 0.5}}
    with pytest.raises(RunConflictError) as refused:
        compare(tiny(folder, arms=changed))
    assert "seed-0 belongs to another training (objective.beta was 0.1, is 0.5): give the arm" in str(refused.value)
