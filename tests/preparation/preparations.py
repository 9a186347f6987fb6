"""Small sources, a tokenizer trained on the spot, and recipes that prepare them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mixdpo_ray.preparation.convert_sources import Sizes
from mixdpo_ray.recipe.recipe import Recipe

WORDS = ("honey", "wax", "bee", "car", "bus", "road", "tree", "apple", "river", "stone", "user", "assistant", ":")
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} </s>{% endfor %}"
    "{% if add_generation_prompt %}assistant :{% endif %}"
)
ON_THE_CLUSTER = Sizes(driver_bytes=-1, part_tokens=2_000)  # what is large enough is done by Ray Data; here everything
Row = dict[str, Any]


def save_tokenizer(folder: Path) -> str:
    vocabulary = {word: number for number, word in enumerate(("<unk>", "<s>", "</s>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return str(folder)


def some_rows(count: int, prompts: int | None = None, seed: int = 0) -> list[Row]:
    """Pairs on a margin grid of halves; all of them different, with so many prompts among them."""
    draw = np.random.default_rng(seed)
    questions = [f"{_text(draw, 4)} tag{number}" for number in range(prompts or count)]
    return [
        {
            "prompt": questions[number % len(questions)],
            "chosen": f"{_text(draw, 6)} good{number}",
            "rejected": f"{_text(draw, 5)} bad{number}",
            "score_chosen": 5 + draw.integers(0, 7) / 2,
            "score_rejected": 5.0,
        }
        for number in range(count)
    ]


def _text(draw: np.random.Generator, words: int) -> str:
    # words that the tokenizer does not know become one token: lengths are what matters here
    return " ".join(draw.choice(WORDS[:10], words))


def write_jsonl(path: Path, rows: Iterable[Row | str]) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


def write_parquet(path: Path, rows: Sequence[Row], row_group_size: int | None = None) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=row_group_size)
    return str(path)


def within(path: str, limit: float) -> Row:
    """A source of which no larger share may be refused."""
    return {"path": path, "max_quarantined_fraction": limit}


def recipe(
    folder: Path, source: str | Sequence[str] | Mapping[str, Any], global_batch_size: int = 4, **data: Any
) -> Recipe:
    """`data` are further settings of the data section; `curriculum` is one of its own."""
    tokenizer = folder / "tokenizer"
    if not tokenizer.exists():
        save_tokenizer(tokenizer)
    curriculum = data.pop("curriculum", {})
    content = {
        "model": {"path": str(tokenizer), "dtype": "float32"},
        "data": {"source": source if isinstance(source, Mapping) else {"path": source}, **data},
        "curriculum": curriculum,
        "train": {"global_batch_size": global_batch_size, "per_device_train_batch_size": 1},
        "output": {"storage_path": str(folder / "outputs")},
    }
    return Recipe.model_validate(content)


def quarantined(folder: str) -> list[tuple[str, int, str]]:
    """File name, row and reason."""
    lines = (Path(folder) / "quarantine.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert all(set(entry) == {"file", "row", "reason", "meaning"} for entry in entries)
    return [(Path(entry["file"]).name, entry["row"], entry["reason"]) for entry in entries]
