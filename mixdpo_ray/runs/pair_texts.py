"""The texts of prepared pairs: a table holds tokens, so the sources are read once more and joined by pair_id.

On the driver: 60,000 pairs are about 300 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.blamed_setting import blamed_on
from mixdpo_ray.pairs.columns import find_format
from mixdpo_ray.pairs.convert import Converter
from mixdpo_ray.pairs.flips import flipped_id
from mixdpo_ray.pairs.pair import Pair
from mixdpo_ray.pairs.settings import SFT_SOURCE, mixed_name
from mixdpo_ray.pairs.template_inputs import parsed
from mixdpo_ray.preparation.sources import find_source
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.sampling.prompts import read_source
from mixdpo_ray.tables.index import Index
from mixdpo_ray.training.tokenizer import load_tokenizer


def texts_of(recipe: Recipe, wanted: set[str]) -> dict[str, Pair]:
    """The pairs by their ids in a table: where labels were flipped or curating exchanged them, as they stand there."""
    tokenizer, found = load_tokenizer(recipe.model), dict[str, Pair]()
    for setting, data in recipe.data.by_source.items():
        if setting == SFT_SOURCE:
            continue
        with blamed_on(setting):
            source = find_source(data.source)
            name = find_format(data, source.columns(data.max_row_bytes))
        converter = Converter(data, name, tokenizer, mixed_name(setting))
        for _, pair in converter.checked(read_source(source, data.max_row_bytes))[0]:
            for pair_id, one in _by_id(pair).items():
                if pair_id in wanted:
                    found.setdefault(pair_id, one)
    if absent := len(wanted - found.keys()):
        raise DataError(
            f"{absent} of {len(wanted)} prepared pairs are not in the sources any more: bring back the files that the "
            "table was made of, or prepare it anew under another output.storage_path"
        )
    return found


def _by_id(pair: Pair) -> dict[str, Pair]:
    """Exchanged once, by curating or as label noise, or by both, which gives the first order a third id."""
    once = flipped_id(pair.pair_id)
    return {pair.pair_id: pair, once: pair.exchanged, flipped_id(once): pair}


def text_table(index: Index, pairs: Mapping[str, Pair]) -> pa.Table:
    """Rows in the index's order; columns as TRL reads them, with tools as JSON."""
    ordered = [pairs[pair_id] for pair_id in index.pair_id]
    columns: dict[str, Sequence[Any] | NDArray[Any]] = {
        "prompt": [list(pair.prompt) for pair in ordered],
        "chosen": [_answer(pair, 0) for pair in ordered],
        "rejected": [_answer(pair, 1) for pair in ordered],
        "margin": np.asarray(index.margin),
        "pair_id": list(index.pair_id),
    }
    if any(pair.template.tools for pair in ordered):
        columns["tools"] = [pair.template.tools or None for pair in ordered]
    if any(pair.template.settings for pair in ordered):
        columns["chat_template_kwargs"] = [parsed(pair.template.settings or "{}") for pair in ordered]
    return pa.table(columns)


def _answer(pair: Pair, which: int) -> list[Any]:
    if pair.answers is not None:
        return list(pair.answers[which])
    return [{"role": "assistant", "content": (pair.chosen, pair.rejected)[which]}]
