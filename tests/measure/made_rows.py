"""Pairs of tokens that mean nothing, as long as UltraFeedback's, or as those of any file; and their tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tests.peer.setup import Row

VOCABULARY, LONGEST, LONGEST_PROMPT = 8192, 1024, 512


def made_rows(count: int, vocabulary: int = VOCABULARY, shortened: int = 1) -> list[Row]:
    """Lognormal lengths with medians of 90 tokens for prompts and 210 for answers, cut at 1,024; or parts of these."""
    draw = np.random.default_rng(0)

    def length(median: float, spread: float, most: int) -> int:
        return int(np.clip(draw.lognormal(np.log(median / shortened), spread), 4, most))

    rows = []
    for _ in range(count):
        prompt = length(90, 0.9, LONGEST_PROMPT // shortened)
        answers = [length(210, 0.8, LONGEST // shortened - prompt) for _ in range(2)]
        ids = [draw.integers(3, vocabulary, size).tolist() for size in (prompt, *answers)]
        rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), ids, strict=True)))
    return rows


def rows_of(path: str, count: int) -> list[Row]:
    """One token for about four bytes, as in English; which token does not matter for time."""
    columns = pq.read_table(path, columns=["prompt", "chosen", "rejected"]).slice(0, 20 * count).to_pylist()
    random.Random(0).shuffle(columns)

    def ids(text: Any, most: int) -> list[int]:
        last = text[-1]["content"] if isinstance(text, list) else text
        content = last.encode()
        return [3 + content[place] * 31 % (VOCABULARY - 3) for place in range(0, len(content), 4)][:most] or [3]

    rows = []
    for row in columns[:count]:
        prompt = ids(row["prompt"], LONGEST_PROMPT)
        answers = (ids(row[name], LONGEST - len(prompt)) for name in ("chosen", "rejected"))
        rows.append(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), (prompt, *answers), strict=True)))
    return rows


def tokens_of(row: Row) -> int:
    """Both sequences of a pair, padding left out."""
    return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def save_tokenizer(folder: Path, words: int) -> None:
    """Nothing is ever tokenized with it, but trainers and exports want one."""
    known = Tokenizer(models.WordLevel({f"w{number}": number for number in range(words)}, unk_token="w0"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, pad_token="w0", bos_token="w1", eos_token="w2")
    tokenizer.save_pretrained(folder)
