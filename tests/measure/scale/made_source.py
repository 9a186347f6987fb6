"""A source of synthetic pairs that `stage_all` takes for any other one: only reading and tokenising are made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mixdpo_ray.pairs.convert import CONVERTED_SCHEMA, Conversion
from mixdpo_ray.pairs.reading import RawRow
from mixdpo_ray.pairs.settings import DataSettings, SourceSettings
from mixdpo_ray.preparation.convert_tasks import ConversionSettings
from mixdpo_ray.preparation.file_slices import SLICE_ROWS
from mixdpo_ray.preparation.sources import Source
from mixdpo_ray.training.settings import ModelSettings
from tests.measure.scale.rows import Draw, hex_ids, scored

FILE = "s3://bucket/preferences/train-{:05d}-of-00128.parquet"  # as long as names of files are
PIECES_PER_FILE = 50


@dataclass(frozen=True)
class MadePiece:
    number: int
    draw: Draw

    def read(self, max_row_bytes: int) -> Iterator[RawRow]:
        yield RawRow(FILE.format(self.number // PIECES_PER_FILE), self.draw.first, {"draw": self.draw})


@dataclass(frozen=True)
class MadeSource(Source):
    rows: int = 0
    fraction: float = 1.0

    def file_slices(self) -> list[Any]:
        firsts = range(0, self.rows, SLICE_ROWS)
        return [
            MadePiece(number, Draw(first, min(SLICE_ROWS, self.rows - first), self.fraction))
            for number, first in enumerate(firsts)
        ]


@dataclass(frozen=True)
class MadeStage(ConversionSettings):
    def converter(self) -> Any:
        return MadeConverter()


class MadeConverter:
    """Rows as they are after tokenising; nothing is refused."""

    def convert(self, rows: Iterable[RawRow]) -> Conversion:
        raw = next(iter(rows))
        assert raw.value is not None
        draw: Draw = raw.value["draw"]
        return Conversion(self._kept(raw.file, draw), [], Counter({"truncated_answer": draw.count // 20}))

    def _kept(self, file: str, draw: Draw) -> pa.Table:
        generator = draw.generator()
        columns = scored(draw, generator)
        columns["prompt_id"] = hex_ids(generator, draw.count)
        columns["source"] = pa.array(["evol_instruct"] * draw.count)
        columns["file"] = pa.array([file] * draw.count)
        columns["row"] = pa.array(np.arange(draw.first, draw.first + draw.count))
        columns["candidate"] = pa.array(np.zeros(draw.count, np.int32))
        for name in ("rater_margins", "chosen_runs", "rejected_runs"):
            columns[name] = pa.nulls(draw.count, CONVERTED_SCHEMA.field(name).type)
        return pa.table({name: columns[name] for name in CONVERTED_SCHEMA.names}, CONVERTED_SCHEMA)


def made(rows: int, fraction: float) -> tuple[MadeSource, MadeStage]:
    settings = SourceSettings.model_validate({"path": "made"})
    data = DataSettings(source=settings)
    source = MadeSource(settings, {}, rows=rows, fraction=fraction)
    return source, MadeStage(ModelSettings.model_validate({"path": "made"}), data, "plain", 0, None)
