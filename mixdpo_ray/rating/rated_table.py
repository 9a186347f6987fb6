"""Numbers of answers on disk, keyed by prompt and answer: another recipe, or more answers, only add what is missing.

<storage>/rated/<fingerprint>/   a table (tables/keyed_table.py) of one model and one way of reading answers: rewards,
                                 or log-probs, which an implicit reward is made of
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pyarrow as pa

from mixdpo_ray import storage
from mixdpo_ray.bar import Counter, say
from mixdpo_ray.cluster.actor_pool import Pool, answers_to, until_done
from mixdpo_ray.cluster.folder_lock import exclusive
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.tables.keyed_table import RATED_FOLDER, KeyedTable

ANSWERS_PER_PART = 256  # what a killed job has to compute again
NUMBER = "number"


class AnswerNumbers(KeyedTable):
    what: ClassVar[str] = "ratings"
    made_by: ClassVar[str] = "jobs/rate.py"
    own_columns: ClassVar[tuple[str, ...]] = (NUMBER,)


def rated_folder(recipe: Recipe) -> str:
    return storage.join(storage.absolute(recipe.output.storage_path), RATED_FOLDER)


def numbers_of(
    recipe: Recipe, pool: Pool, model: str, content: Mapping[str, Any], answers: Mapping[str, Any], batch_size: int
) -> dict[str, float]:
    """The number of each answer by its id: what the table lacks is computed, in this order.

    `model`: its name, for people; `content`: what decides the numbers; `answers`: id -> what actors read, as JSON.
    """
    name = fingerprint(content)
    folder = storage.join(rated_folder(recipe), name)
    with exclusive(folder):
        table = AnswerNumbers.create(folder, name, {"model": model, **content})

        def attempt() -> None:
            if missing := table.missing(list(answers)):
                _compute(pool, table, [(one, answers[one]) for one in missing], batch_size)

        before = len(table.missing(list(answers)))
        if before < len(answers):
            say(f"{pool.title}: {len(answers) - before:,} of {len(answers):,} answers are rated already")
        until_done(attempt, pool.workers, "cluster.reference_workers")
        return dict(zip(answers, table.column(NUMBER, list(answers)).tolist(), strict=True))


def _compute(pool: Pool, table: AnswerNumbers, missing: Sequence[tuple[str, Any]], batch_size: int) -> None:
    table.begin_pass()
    batches = [
        {"answers": json.dumps(missing[first : first + batch_size])} for first in range(0, len(missing), batch_size)
    ]
    workers = min(pool.settings.reference_workers or pool.settings.fewest_workers, len(batches))
    copies = pool.workers_text(workers)
    say(f"{pool.title}: {len(missing):,} answers to rate, by {copies}", meanwhile=f"{pool.title}: starting {copies}")
    held: list[pa.Table] = []
    with Counter(pool.title, "answer", len(missing)) as progress:
        for rows in answers_to(pool, batches, workers, at_once=1):
            held.append(rows)
            progress.add(len(rows))
            if sum(map(len, held)) >= ANSWERS_PER_PART:
                table.append(pa.concat_tables(held))
                held = []
        if held:
            table.append(pa.concat_tables(held))


def numbered(ids: Sequence[str], numbers: Any) -> pa.Table:
    """Rows of the table."""
    return pa.table({"pair_id": pa.array(ids, pa.string()), NUMBER: pa.array(numbers, pa.float64())})
