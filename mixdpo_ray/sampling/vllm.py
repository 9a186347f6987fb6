"""The engine `vllm`: copies of the model in vLLM's engine on the cluster's GPUs, through Ray Data (extra `vllm`).

N answers are N rows with seeds of their own, since the stage keeps the first answer of a row alone; a prompt's rows
follow each other, and its prefix is kept, so that it is read once. vLLM's texts change with what else is in a batch:
answers are stored as they come, with their tokens, under the key that was asked for, and none is drawn twice. Prefer
`hf` where the same answers must come again, and this engine for many answers of a large model.
"""

from __future__ import annotations

import math
from collections import Counter as Counts
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray

from mixdpo_ray.bar import say
from mixdpo_ray.cluster.actor_pool import copies_text
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.quiet_data import quiet_ray_data
from mixdpo_ray.cluster.ray_errors import plain_errors
from mixdpo_ray.errors import RecipeError, ResourceError
from mixdpo_ray.recipe.extras import Extra, lacks
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.recipe.sample import SampleSettings
from mixdpo_ray.sampling.engine import DRAWN, AskedAnswer
from mixdpo_ray.sampling.hf import HfEngine, without_weights
from mixdpo_ray.sampling.http import SEED_BITS
from mixdpo_ray.training.decoding import DecodingSettings
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase

VLLM = Extra("vllm", "vllm", "answers.sample.engine vllm", "set it to hf, or to http for a server")
ROWS_OF_BATCH = 64  # of a batch; the stage has eight batches in the engine at once
FAILED = "__inference_error__"  # Ray Data's column
STAGE_COLUMNS = ["prompt_id", "draw", "most", "generated_text", "generated_tokens", FAILED]


class VllmEngine(HfEngine):
    """Renders and tokenises as `hf` does: what cannot be answered is known before Ray starts."""

    def __init__(self, recipe: Recipe):
        if lacks(VLLM.module):
            raise RecipeError(VLLM.lacking())
        super().__init__(recipe)
        self._failed: Counts[str] = Counts()
        with without_weights(self._model) as here:
            self._ends = model_ends(here) | template_ends(self._tokenizer)

    @property
    def identity(self) -> dict[str, Any]:
        options = self.settings.vllm.options
        return {**super().identity, "engine": "vllm", **({"options": options} if options else {})}

    @property
    def unanswered(self) -> Mapping[str, int]:
        return self._failed

    @property
    def workers(self) -> int:
        cluster = self.recipe.cluster
        gpus = cluster.reference_workers or cluster.fewest_workers
        return self.settings.workers or max(1, gpus // self.settings.vllm.gpus_each)

    def answers(self, asked: Sequence[AskedAnswer]) -> Iterator[pa.Table]:
        if not uses_gpu(self.recipe.cluster):
            raise ResourceError("answers.sample.engine vllm needs GPUs, and the cluster has none: set it to hf")
        self._failed = Counts()
        rows = [
            vllm_row(one, self._ids[one.prompt_id], self._room(self._ids[one.prompt_id]), self.settings, self._ends)
            for one in self.by_length(asked)
        ]
        workers = min(self.workers, math.ceil(len(rows) / ROWS_OF_BATCH))
        say(f"sample: {len(rows):,} answers to draw, by {copies_text(workers)} in vLLM")
        return self._answers(rows, workers)

    def _answers(self, rows: Sequence[dict[str, Any]], workers: int) -> Iterator[pa.Table]:
        from ray.data.llm import build_processor

        quiet_ray_data()
        processor = build_processor(vllm_config(self._model, self.settings, workers))
        source = ray.data.from_items(list(rows), override_num_blocks=math.ceil(len(rows) / ROWS_OF_BATCH))
        done = processor(source).select_columns(STAGE_COLUMNS)
        with plain_errors():
            for block in done.iter_batches(batch_size=None, batch_format="pyarrow"):
                answered, failed = sorted_out(block)
                self._failed.update(failed)
                if answered:
                    yield drawn_table(answered, self._tokenizer, self._ends, self.settings.decoding.stop)


def vllm_row(
    one: AskedAnswer, ids: Sequence[int], room: int | None, settings: SampleSettings, ends: AbstractSet[int]
) -> dict[str, Any]:
    """What the stage is given for one answer. A column `model` would be taken for an adapter's name."""
    decoding = settings.decoding
    most = decoding.max_new_tokens if room is None else min(decoding.max_new_tokens, room)
    return {
        "prompt_id": one.prompt_id,
        "draw": one.draw,
        "most": most,
        "tokenized_prompt": list(ids),
        "sampling_params": sampling_parameters(decoding, one, most, ends),
    }


def sampling_parameters(
    decoding: DecodingSettings, one: AskedAnswer, most: int, ends: AbstractSet[int]
) -> dict[str, Any]:
    """Those of vllm.SamplingParams; empty lists are left out, as a column cannot tell of what they are empty."""
    from mixdpo_ray.training.keyed_sampling import key_seed

    return {
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "max_tokens": most,
        "min_tokens": min(decoding.min_new_tokens, most),
        "seed": key_seed(one.prompt_id, one.draw, decoding.seed) % 2**SEED_BITS,
        **({"stop": list(decoding.stop)} if decoding.stop else {}),
        **({"stop_token_ids": sorted(ends)} if ends else {}),
    }


def vllm_config(model: ModelSettings, settings: SampleSettings, workers: int) -> Any:
    """The stage's configuration: the engine alone, as prompts come as tokens; a failed row is told and not raised."""
    from ray.data.llm import vLLMEngineProcessorConfig

    own = settings.vllm
    engine = {
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "tensor_parallel_size": own.gpus_each,
        "gpu_memory_utilization": own.memory,
        "enable_prefix_caching": True,
        **({"revision": model.revision} if model.revision else {}),
        **({"tokenizer": model.tokenizer} if model.tokenizer else {}),
        **own.options,
    }
    return vLLMEngineProcessorConfig(
        model_source=model.path,
        engine_kwargs=engine,
        batch_size=ROWS_OF_BATCH,
        concurrency=(workers, workers),
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )


def model_ends(model: ModelSettings) -> set[int]:
    """Tokens that end an answer by the model's own files."""
    from transformers import AutoConfig, GenerationConfig

    where = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    try:
        own = GenerationConfig.from_pretrained(model.path, revision=model.revision).eos_token_id
    except OSError:  # it has no generation_config.json
        own = AutoConfig.from_pretrained(model.path, **where).get_text_config().eos_token_id
    return {end for end in (own if isinstance(own, list) else [own]) if end is not None}


def template_ends(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    from mixdpo_ray.training.generation import tokenizer_ends

    return set(tokenizer_ends(tokenizer))


def sorted_out(block: pa.Table) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows with an answer, and why others have none."""
    rows = block.select(STAGE_COLUMNS).to_pylist()
    return [row for row in rows if not row[FAILED]], [row[FAILED] for row in rows if row[FAILED]]


def drawn_table(
    rows: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, ends: AbstractSet[int], stop: Sequence[str]
) -> pa.Table:
    """Rows of DRAWN. The stage does not tell why an answer ended: it is seen from its last tokens."""
    found = []
    for row in rows:
        ids = [int(token) for token in row["generated_tokens"]]
        ended = bool(ids) and ids[-1] in ends
        ids = ids[:-1] if ended else ids
        cut = not ended and len(ids) >= row["most"]
        if cut and stop:
            written = tokenizer.decode(ids, skip_special_tokens=True)
            cut = not any(text in written for text in stop)
        found.append(
            {
                "prompt_id": row["prompt_id"],
                "draw": row["draw"],
                "answer": row["generated_text"],
                "tokens": len(ids),
                "token_ids": ids,
                "finish": "length" if cut else "stop",
            }
        )
    return pa.Table.from_pylist(found, DRAWN)
