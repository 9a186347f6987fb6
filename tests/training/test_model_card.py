"""The README of an exported model, as the Hub and a person read it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.card_metadata import data_sets, hub_name, licence_of, metadata_of
from mixdpo_ray.training.export import export_permissions
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.metric_names import of_set
from mixdpo_ray.training.model_card import CardFacts, model_card, recipe_of_card
from mixdpo_ray.training.settings import LoraSettings
from tests.training.tiny import make_job

AFTER = {
    "eval_rewards/accuracies": 10 / 15,
    "eval_rewards/margins": 0.25,
    "eval_nll/chosen": 1.5,
    "eval_pairs/margin_0-0.5": 1.0,
    "eval_rewards/accuracies/margin_0-0.5": 1.0,
    "eval_pairs/margin_4-inf": 14.0,
    "eval_rewards/accuracies/margin_4-inf": 9 / 14,
    "eval_std/rewards/margins": 0.5,
}


def card(job: TrainingJob, *, adapter: bool = False, **changes: Any) -> str:
    plan = job.plan(PreparedTable.open(job.prepared))
    facts = CardFacts(plan, job.steps(plan), {"eval_rewards/accuracies": 7 / 15}, AFTER, chats=False)
    return model_card(job, replace(facts, **changes), adapter=adapter)


@pytest.fixture
def job(tiny: Path, tmp_path: Path) -> TrainingJob:
    recipe = {
        "model": {"path": str(tiny / "model")},
        "data": {"source": {"path": [f"{tmp_path}/pairs.jsonl", "org/pairs"]}},
        "tune": {"num_samples": 3},
        "output": {"storage_path": str(tmp_path)},
    }
    data = {"rows_in": 50, "rows_kept": 41, "margins": {}, "content_digest": "abc"}
    return replace(make_job(tiny, tmp_path / "runs" / "own"), card={"recipe": recipe, "data": data})


def test_nothing_of_the_machine_is_in_the_card(job: TrainingJob, tiny: Path, tmp_path: Path) -> None:
    text = card(job)
    for folder in (tmp_path, tiny, Path("/tmp"), Path.home()):
        assert f"{folder}/" not in text
    assert text.splitlines()[0] == "---"
    assert "\n# own\n\n`model`, tuned on preference pairs" in text
    assert "base_model" not in text
    assert "num_samples" not in text


def test_the_hub_reads_its_metadata(job: TrainingJob) -> None:
    base = job.model.model_copy(update={"path": "org/some-model"})
    recipe = {**job.card["recipe"], "data": {"source": {"path": "org/pairs", "format": "plain"}}}
    read = ModelCard(card(replace(job, model=base, card={**job.card, "recipe": recipe})))
    names = ("base_model", "library_name", "pipeline_tag", "tags", "datasets", "model_name")
    assert {name: getattr(read.data, name) for name in names} == {
        "base_model": "org/some-model",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["preference-tuning", "mixdpo", "dpo"],
        "datasets": ["org/pairs"],
        "model_name": "own",
    }
    metadata: Any = read.data
    (result,) = metadata.to_dict()["model-index"][0]["results"]
    assert result["dataset"] == {"type": "org/pairs", "name": "held-out pairs"}
    assert result["metrics"] == [{"type": "accuracy", "value": 0.6667, "name": "preference accuracy"}]


def test_each_held_out_set_has_a_result_of_its_own(job: TrainingJob) -> None:
    accuracies = {"": 0.75, "code": 0.5, "maths": 0.25}
    after = {of_set("eval_rewards/accuracies", name): value for name, value in accuracies.items()}
    metadata: Any = metadata_of(job, after, ["code", "maths"], adapter=False)
    results = metadata.to_dict()["model-index"][0]["results"]
    assert [(one["dataset"]["name"], [metric["value"] for metric in one["metrics"]]) for one in results] == [
        ("held-out pairs", [0.75]),
        ("held-out pairs of code", [0.5]),
        ("held-out pairs of maths", [0.25]),
    ]


def test_the_licence_is_that_of_the_base_models_card_and_left_out_where_it_has_none(tmp_path: Path) -> None:
    assert licence_of(str(tmp_path), None) == {}
    text = "---\nlicense: other\nlicense_name: own-terms\nlicense_link: LICENSE\ntags: [a]\n---\n# Base\n"
    (tmp_path / "README.md").write_text(text)
    found = {"license": "other", "license_name": "own-terms", "license_link": "LICENSE"}
    assert licence_of(str(tmp_path), None) == found
    for damaged in ("---\nlicense: [\n---\n", "no metadata\n"):
        (tmp_path / "README.md").write_text(damaged)
        assert licence_of(str(tmp_path), None) == {}


def test_only_data_sets_of_the_hub_are_named(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    assert data_sets({"source": {"path": [f"{tmp_path}/a.jsonl", "org/pairs"]}}) == []
    assert data_sets({"source": {"path": str(tmp_path / "pairs"), "split": "train"}}) == []
    assert data_sets({"source": {"path": "s3://bucket/pairs"}}) == []
    mix = {"one": {"path": "org/one", "weight": 0.5}, "two": {"path": "two.jsonl"}, "three": {"path": "org/three"}}
    assert data_sets({"source": {"path": [], "mix": mix}}) == ["org/one", "org/three"]


def test_margins_are_a_table_and_the_paper_is_cited(job: TrainingJob) -> None:
    margins = {"low": list(range(50)), "high": list(range(50)), "count": [2] * 50}
    text = card(replace(job, card={**job.card, "data": {**job.card["data"], "margins": margins}}))
    table = text.partition("## Margins of the training pairs")[2].partition("<details>")[0]
    assert "| 0 to 2 | 6 |" in table
    assert sum(int(line.split("|")[2]) for line in table.splitlines() if " to " in line) == 100
    assert "eprint = {2602.00954}" in text


@pytest.mark.parametrize(
    ("written", "name"),
    [("org/base", "org/base"), ("/data/models/base", None), ("./base", None), ("base", None), (None, None), (3, None)],
)
def test_a_local_model_is_named_by_the_hubs_name_in_its_config_or_not_at_all(
    tmp_path: Path, written: object, name: str | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_name_or_path": written}))
    assert hub_name(str(tmp_path)) == name


def test_the_hubs_name_of_a_model_is_its_path_where_that_is_no_folder(tmp_path: Path) -> None:
    assert hub_name("gpt2") == "gpt2"
    assert hub_name("org/base") == "org/base"
    assert hub_name(str(tmp_path / "gone")) is None
    assert hub_name(str(tmp_path)) is None  # without a config


def test_the_pairs_that_were_trained_are_counted_and_not_those_that_were_kept(job: TrainingJob) -> None:
    """22 easy and 10 hard pairs; in three epochs they are the same pairs."""
    assert "- pairs: 32 trained (22 easy, 10 hard), 15 held out; 41 kept of 50" in card(job)
    thrice = replace(job, train=job.train.model_copy(update={"num_train_epochs": 3}))
    assert "- pairs: 32 trained (22 easy, 10 hard)" in card(thrice)
    dropped = replace(job, curriculum=job.curriculum.model_copy(update={"mode": "discard_hard"}))
    assert "- pairs: 22 trained (22 easy, 0 hard)" in card(dropped)
    assert "supervised" not in card(dropped)


def test_an_accuracy_of_one_pair_is_not_shown(job: TrainingJob) -> None:
    text = card(job)
    assert "| 0 to 0.5 | 1 | too few |" in text
    assert "| from 4 | 14 | 0.643 (0.388 to 0.837) |" in text
    assert "## 15 held-out pairs" in text
    assert "| preference accuracy | 0.467 (0.248 to 0.699) | 0.667 (0.417 to 0.848) |" in text
    assert "| loss per token of chosen answers |  | 1.500 |" in text
    assert sum(line.startswith("|") for line in text.splitlines()) < 12, "no table of margins where none is known"
    assert "held-out" not in card(job, after={})


def test_lora_is_named_where_it_was_used(job: TrainingJob) -> None:
    assert "LoRA" not in card(job)
    text = card(replace(job, model=job.model.model_copy(update={"lora": LoraSettings(rank=4)})))
    assert "by LoRA of rank 4 that is merged into the weights" in text
    assert "- lora\n" in text


def test_an_adapter_alone_is_pefts_and_names_its_base(job: TrainingJob) -> None:
    lora = job.model.model_copy(update={"lora": LoraSettings(rank=4), "path": "org/some-model"})
    read = ModelCard(card(replace(job, model=lora), adapter=True))
    metadata: Any = read.data
    assert (metadata.library_name, metadata.base_model) == ("peft", "org/some-model")
    assert "by LoRA of rank 4 that is here without them" in read.text
    assert "model = AutoPeftModelForCausalLM.from_pretrained(name)" in read.text


@pytest.mark.parametrize("adapter", [False, True])
def test_it_says_how_the_model_is_used(job: TrainingJob, adapter: bool) -> None:
    for chats in (True, False):
        code = card(job, chats=chats, adapter=adapter).partition("```python\n")[2].partition("```")[0]
        compile(code, "card", "exec")
        assert ("apply_chat_template" in code) is chats


def test_the_recipe_of_a_card_has_no_local_folder_and_no_section_of_a_machine() -> None:
    template = "/{{ messages }}\n{% for one in messages %}"
    recipe = {
        "model": {"path": "/home/me/models/base/", "tokenizer": "~/tok", "chat_template": template},
        "data": {"source": {"path": ["file:///data/a.jsonl", "s3://bucket/b.jsonl"]}},
        "cluster": {"num_workers": 8},
    }
    assert recipe_of_card(recipe) == {
        "model": {"path": "base", "tokenizer": "tok", "chat_template": template},
        "data": {"source": {"path": ["a.jsonl", "s3://bucket/b.jsonl"]}},
    }


def test_exported_files_have_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    for name, mode in (("config.json", 0o644), ("model.safetensors", 0o600), ("README.md", 0o664)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    export_permissions(tmp_path)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_a_stage_without_pairs_is_told(job: TrainingJob) -> None:
    told = card(replace(job, card={**job.card, "note": "all 32 are hard"}))
    assert "\n- all 32 are hard\n" in told
