"""A pair whose reference is unknown stops a run before its first step, whatever kind of reference it lacks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc
import pytest

from mixdpo_ray.errors import PreparedTableError
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.objectives.kto import KTO
from mixdpo_ray.objectives.selective_tokens import SelectiveTokens
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.tables.reference_table import TOKENS, ReferenceTable, TokenReferenceTable
from mixdpo_ray.training.checks_before_training import references_for
from tests.training.tiny import EASY, make_job


def test_foreign_answers_are_asked_for_by_kto_alone(tiny: Path, tmp_path: Path) -> None:
    table, whole = PreparedTable.open(str(tiny / "table")), ReferenceTable.open(str(tiny / "reference"))
    own = [table.index("train").pair_id[position] for position in range(EASY)]
    ReferenceTable.create(str(tmp_path / "own"), "own").append(
        whole.rows.filter(pc.is_in(whole.rows["pair_id"], pc.cast(own, whole.rows["pair_id"].type)))
    )
    for objective, lacks in ((DPO(), False), (KTO(), True)):
        job = replace(make_job(tiny, tmp_path, objective=objective), reference=str(tmp_path / "own"))
        if lacks:
            with pytest.raises(PreparedTableError, match=f"lacks {EASY} pairs"):
                references_for(job, table, job.plan(table))
        else:
            assert references_for(job, table, job.plan(table)) is not None


def test_single_tokens_are_asked_for_where_an_objective_reads_them(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "reference", tmp_path / "sums")
    job = replace(make_job(tiny, tmp_path, objective=SelectiveTokens()), reference=str(tmp_path / "sums"))
    table = PreparedTable.open(job.prepared)
    with pytest.raises(PreparedTableError, match="holds no references of tokens"):
        references_for(job, table, job.plan(table))
    TokenReferenceTable.create(str(tmp_path / "sums") + TOKENS, "empty")
    with pytest.raises(PreparedTableError, match=f"lacks {EASY} pairs"):
        references_for(job, table, job.plan(table))
