"""Published pairs are the texts of the source in the table's order, and other libraries take them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard, constants

from mixdpo_ray.pairs.convert import Converter
from mixdpo_ray.pairs.flips import flipped_id
from mixdpo_ray.pairs.reading import read_rows
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.pair_texts import texts_of
from mixdpo_ray.runs.publish import publish
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.tokenizer import load_tokenizer
from tests.hub_stand_in import TOKEN, hub_stand_in
from tests.preparation.preparations import save_tokenizer, some_rows, write_jsonl

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    rows = some_rows(40)
    for row in rows[::2]:
        row["tools"] = [TOOL]
    write_jsonl(tmp_path / "pairs.jsonl", [*rows, "{broken"])
    save_tokenizer(tmp_path / "model")
    return rows


def recipe(tmp_path: Path, **data: Any) -> Recipe:
    (tmp_path / "token").write_text(TOKEN)
    source = {"path": str(tmp_path / "pairs.jsonl"), "max_quarantined_fraction": 0.5}
    return Recipe.model_validate(
        {
            "model": {"path": str(tmp_path / "model")},
            "data": {"source": source, "max_length": 64, "max_prompt_length": 32, **data},
            "cluster": {"use_gpu": False},
            "train": {"global_batch_size": 8, "per_device_train_batch_size": 4},
            "output": {
                "storage_path": str(tmp_path / "out"),
                "name": "own",
                "push_to_hub": {"repo": "me/own", "key_file": str(tmp_path / "token")},
            },
        }
    )


@pytest.mark.cluster
@pytest.mark.usefixtures("local_ray")
def test_the_texts_of_a_table_are_read_by_other_libraries_and_pushed_once(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path, heldout={"fraction": 0.2})
    with hub_stand_in() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        report = publish(asked)
        pushed = len(hub.commits)
        assert publish(asked).pushed == report.pushed == f"{hub.address}/datasets/me/own"
        assert len(hub.commits) == pushed
        sent = hub.files("datasets/me/own")
        assert set(sent) == {"README.md", "data/train.parquet", "data/test.parquet"}
        card: Any = DatasetCard(sent["README.md"].decode())
        card.validate()
    metadata: Any = card.data
    assert "license" not in metadata.to_dict()
    assert str(tmp_path) not in str(card)
    assert "40 of 41 pairs were kept" in str(card)
    found: Any = load_dataset(report.folder, cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in found.items()} == report.rows
    by_answer = {row["chosen"]: row for row in rows}
    for row in [*found["train"], *found["test"]]:
        source = by_answer.pop(row["chosen"][0]["content"])
        assert row["prompt"] == [{"role": "user", "content": source["prompt"]}]
        assert row["rejected"] == [{"role": "assistant", "content": source["rejected"]}]
        assert row["margin"] == source["score_chosen"] - source["score_rejected"]
        assert (row["tools"] and json.loads(row["tools"])) == source.get("tools")
    assert not by_answer
    (prepared,) = (tmp_path / "out" / "prepared").glob("[!.]*")
    assert found["train"]["pair_id"][:] == list(PreparedTable.open(str(prepared)).index("train").pair_id)
    assert sorted(found["train"]["margin"], reverse=True) == found["train"]["margin"][:]
    _trl_takes(found["train"], tmp_path)


def _trl_takes(pairs: Any, folder: Path) -> None:
    """Its trainer renders and tokenises them."""
    trl = pytest.importorskip("trl")
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.pad_token = tokenizer.eos_token
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "model")
    config = trl.DPOConfig(
        output_dir=str(folder / "trl"), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=None
    )
    trainer = trl.DPOTrainer(str(folder / "model"), args=config, train_dataset=pairs, processing_class=tokenizer)
    assert len(trainer.train_dataset) == len(pairs)
    assert {"prompt_ids", "chosen_ids", "rejected_ids"} <= set(trainer.train_dataset.column_names)


def test_pairs_whose_answers_were_exchanged_have_the_texts_of_the_table(
    rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    asked = recipe(tmp_path, heldout={"fraction": 0})
    rejected = {row["rejected"] for row in rows}
    converter = Converter(asked.data, "plain", load_tokenizer(asked.model))
    pairs = [pair for _, pair in converter.checked(read_rows(str(tmp_path / "pairs.jsonl"), 1 << 20))[0]]
    once = texts_of(asked, {flipped_id(pair.pair_id) for pair in pairs})
    assert {pair.chosen for pair in once.values()} == rejected
    twice = texts_of(asked, {flipped_id(flipped_id(pair.pair_id)) for pair in pairs})
    assert {pair.rejected for pair in twice.values()} == rejected
