"""A recipe and what the checks find out about it. Each fact is found once, by the check that a person sees fail."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from mixdpo_ray import storage
from mixdpo_ray.cluster.connect import uses_gpu
from mixdpo_ray.cluster.folder_lock import prepared_folder
from mixdpo_ray.cluster.nodes import Node, free_disk, survey
from mixdpo_ray.cluster.preflight import local_paths
from mixdpo_ray.curriculum.plan import Plan
from mixdpo_ray.doctor.finding import Unchecked
from mixdpo_ray.errors import MixDPOError, ModelError
from mixdpo_ray.pairs.reading import RawRow, read_rows
from mixdpo_ray.preparation.sources import Source, block_rows, find_sources
from mixdpo_ray.preparation.table_key import table_name
from mixdpo_ray.recipe.extras import extras_for_training
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.job import job_in
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.trained_rows import trained_index
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.tokenizer import load_tokenizer, tokenizer_digest
from mixdpo_ray.training.window_shares import index_lengths

if TYPE_CHECKING:
    from mixdpo_ray.training.memory_estimate import ModelShape

FIRST_ROWS = 64


def is_on_hub(name: str) -> bool:
    return storage.may_be_on_hub(name) and not Path(name).is_dir()


@dataclass(frozen=True)
class Examination:
    recipe: Recipe
    folder: Path  # that would be submitted
    probe: bool = False

    @cached_property
    def nodes(self) -> list[Node]:
        """Asked all at once. What is local here should be there as well."""
        modules = [extra.module for extra in extras_for_training(self.recipe)]
        return survey(self.recipe.output.storage_path, self.local_paths, modules, gpu_memory=self.gpu)

    @cached_property
    def gpu(self) -> bool:
        """Needs Ray, unless the recipe says."""
        wanted = self.recipe.cluster.use_gpu
        return uses_gpu(self.recipe.cluster) if wanted is None and ray.is_initialized() else bool(wanted)

    @cached_property
    def is_this_machine(self) -> bool:
        """Whether Ray was started here and told of as many CPUs as the recipe asks for: they are seats, not cores."""
        return len(self.nodes) == 1 and "RAY_ADDRESS" not in os.environ

    @cached_property
    def local_paths(self) -> tuple[str, ...]:
        return local_paths(self.recipe)

    @cached_property
    def free_disk(self) -> int | None:
        return free_disk(self.recipe.output.storage_path)

    @cached_property
    def shape(self) -> ModelShape:
        from mixdpo_ray.training.memory_estimate import (
            shape_of,  # brings torch, which every job's preflight can do without
        )

        return shape_of(self.recipe.model)

    @cached_property
    def size(self) -> ModelShape:
        """The shape, or what the model's name says of its weights where its configuration is out of reach."""
        from mixdpo_ray.training.memory_estimate import shape_by_name

        try:
            return self.shape
        except ModelError:
            named = shape_by_name(self.recipe.model) if is_on_hub(self.recipe.model.path) else None
            if named is None:
                raise Unchecked("the sizes of the model are not known") from None
            return named

    @cached_property
    def packed_pair(self) -> int | None:
        """Tokens of the longest packed pair: the table's, or before it is there what the recipe's lengths allow a pair
        with a prompt of full length. None where rows are padded.
        """
        model, data = self.recipe.model, self.recipe.data
        if not model.packing or self.size.why_padded is not None:
            return None
        try:
            table = self.table
        except MixDPOError:
            table = None  # another check says why
        if table is None:
            return 2 * data.max_length - data.max_prompt_length
        index = trained_index(table)
        lengths = index_lengths(index, np.arange(len(index)))
        return int((lengths.prompt + lengths.chosen + lengths.rejected).max(initial=0))

    @cached_property
    def tokenizer(self) -> Any:
        return load_tokenizer(self.recipe.model)

    @cached_property
    def sources(self) -> list[Source]:
        return find_sources(self.recipe.data)

    def first_rows(self, source: Source) -> list[RawRow]:
        if source.mapped is not None:
            return list(
                islice((row for block in source.blocks() for row in block_rows(source.name, block)), FIRST_ROWS)
            )
        limit = source.settings.max_row_bytes
        return list(islice((row for file in source.files for row in read_rows(file, limit)), FIRST_ROWS))

    @cached_property
    def table(self) -> PreparedTable | None:
        name = table_name(self.recipe, tokenizer_digest(self.tokenizer), self.sources)
        folder = prepared_folder(self.recipe.output.storage_path, name)
        return PreparedTable.open(folder) if PreparedTable.committed(folder) else None

    def job(self, table: PreparedTable, run: str = "") -> TrainingJob:
        return job_in(run, self.recipe, table, "")

    @cached_property
    def plan(self) -> Plan | None:
        return None if self.table is None else self.job(self.table).plan(self.table)
