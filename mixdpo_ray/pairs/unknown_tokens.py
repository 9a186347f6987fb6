"""Whether a tokenizer knows the words of the pairs: a model cannot learn from words that all look the same to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

RARE = 0.02  # of all tokens: names and rare signs may be unknown
TOKEN_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")


def unknown_tokens(rows: pa.Table, tokenizer: Any) -> str | None:
    """What is wrong with the tokens of these rows; nothing where the tokenizer can write every word."""
    unknown = tokenizer.unk_token_id
    if unknown is None or not len(rows):
        return None
    tokens = np.concatenate([np.concatenate(rows[name].to_numpy(zero_copy_only=False)) for name in TOKEN_COLUMNS])
    share = float(np.mean(tokens == unknown))
    if share <= RARE:
        return None
    return (
        f"{share:.0%} of the tokens of the first {len(rows)} pairs are unknown to the tokenizer (all of them are "
        f"{tokenizer.unk_token}): to the model these words are one; take a model whose tokenizer knows them"
    )
