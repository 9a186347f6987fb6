"""Pairs the wrong way round, found by models that learned from trusted pairs (PerpCorrect).

A surrogate is trained by DPO on a few trusted pairs. What it finds surprising tells right pairs from flipped ones
(mixture.py); the clearest of either kind, the flipped ones exchanged, join the trusted pairs, and a fresh surrogate is
trained. The round that separates best decides. Surprise is that of the answer's own tokens: a prompt's is the same for
both answers of a pair.

The log-probs of each round lie in scores/<fingerprint>/; a killed job continues with the round it was in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster import actor_pool
from mixdpo_ray.cluster.folder_lock import atomic_folder, exclusive
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.curation.curated import CuratedPairs, bounded
from mixdpo_ray.curation.mixture import Mixture, fit_mixture, normal_below, trusted_next
from mixdpo_ray.curriculum.order import seeded_hashes
from mixdpo_ray.curriculum.settings import CurriculumSettings
from mixdpo_ray.difficulty.implicit_margin import mean_margin
from mixdpo_ray.difficulty.metric import AnswerLogps, base_model
from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.pairs.curating import PerpCorrect
from mixdpo_ray.pairs.flips import with_flips
from mixdpo_ray.recipe.recipe import Recipe, fingerprint
from mixdpo_ray.scoring import reference
from mixdpo_ray.scoring.short_training import short_training, train_models
from mixdpo_ray.tables.keyed_table import SCORES
from mixdpo_ray.tables.prepared_table import (
    PREPARED_SCHEMA,
    SPLITS,
    Manifest,
    PreparedTable,
    SplitFacts,
    commit,
    index_rows,
    with_index_seals,
    write_index,
    write_part,
)
from mixdpo_ray.tables.reference_table import ReferenceTable
from mixdpo_ray.tables.runs import RUNS
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.model_files import model_digest, with_absolute_paths
from mixdpo_ray.training.settings import LoraSettings, ModelSettings, TrainSettings

PICTURED = 60  # bars


@dataclass(frozen=True)
class Round:
    """What one surrogate makes of all pairs."""

    x: NDArray[np.float64]
    mixture: Mixture

    def facts(self) -> dict[str, float]:
        names = ("mean", "deviation", "right", "threshold", "separation")
        return {name: float(getattr(self.mixture, name)) for name in names}


@dataclass(frozen=True)
class Surrogates:
    recipe: Recipe
    table: PreparedTable
    settings: PerpCorrect
    trusted: pa.Table  # rows of PREPARED_SCHEMA
    others: NDArray[np.int64]  # positions of the pairs that are not trusted

    def rounds(self) -> Iterator[Round]:
        """The first by the trusted pairs alone."""
        rows = self.trusted
        for number in range(self.settings.rounds + 1):
            done = Round(x := self._surprise(number, rows), fit_mixture(x[self.others]))
            told = done.facts()
            say(f"curate: round {number}, separation {told['separation']:.4f}, flipped {1 - told['right']:.1%}")
            yield done
            share = min(self.settings.added_fraction * (number + 1), 1.0)
            as_they_are, turned = trusted_next(x[self.others], done.mixture.right, share)
            rows = pa.concat_tables(
                [self.trusted, self._rows(self.others[as_they_are]), exchanged(self._rows(self.others[turned]))],
                promote_options="default",  # some may have answers of several turns
            )

    def _rows(self, positions: NDArray[np.int64]) -> pa.Table:
        return plain_rows(self.table.read("train", positions))

    def _surprise(self, number: int, rows: pa.Table) -> NDArray[np.float64]:
        """Mean surprise of the chosen answer's tokens minus that of the rejected one's: [pairs]."""
        content = self._identity(rows)
        name = fingerprint(content)
        folder = storage.join(storage.absolute(self.recipe.output.storage_path), SCORES, name)
        index = self.table.index("train")
        with exclusive(folder):
            store = ReferenceTable.create(folder, name, content)
            if store.missing(index.pair_id):
                self._train_and_score(number, rows, store, name)
            chosen, rejected = (part.astype(np.float64) for part in store.aligned(index.pair_id))
        margin = mean_margin(AnswerLogps(chosen, rejected), index.chosen_scored, index.rejected_scored)
        return np.asarray(-margin, np.float64)

    def _train_and_score(self, number: int, rows: pa.Table, store: ReferenceTable, name: str) -> None:
        run = storage.join(store.folder, "training")
        record, title = RunRecord(run), f"surrogate {number + 1} of {self.settings.rounds + 1}"
        if record.summary() is None:
            table = written_table(storage.join(store.folder, "pairs"), rows, self.table)
            known = reference.cover(
                self.recipe.model_copy(update={"model": self._start}), table, {"train": np.arange(len(rows))}
            )
            train_models(self.recipe.cluster, {title: self._job(table, known, run, name)}, table)
        trained = self._start.model_copy(update={"path": record.model, "revision": None})
        pool = reference.logps_pool(self.recipe, self.table, trained, title)
        actor_pool.cover_positions(pool, self.table, store, {"train": np.arange(self.table.rows("train"))})
        for path in (record.model, record.checkpoints, record.summary_file, storage.join(store.folder, "pairs")):
            storage.delete(path)

    @property
    def _start(self) -> ModelSettings:
        return base_model(with_absolute_paths(self.recipe.model))

    @property
    def _train(self) -> TrainSettings:
        settings = self.settings
        return short_training(
            self.recipe.train,
            settings.learning_rate,
            settings.num_train_epochs,
            settings.global_batch_size,
            settings.seed,
        )

    def _identity(self, rows: pa.Table) -> dict[str, Any]:
        train = self._train.identity()
        return {
            "metric": "perpcorrect",
            "pairs": hashlib.sha256("".join(sorted(rows["pair_id"].to_pylist())).encode()).hexdigest()[:16],
            "model": self._start.logps_identity(),
            "weights": model_digest(self._start),
            "lora": self.settings.lora_rank,
            "tokenizer": self.table.manifest.facts["tokenizer"],
            "lengths": self.recipe.data.model_dump(include={"max_prompt_length", "max_length", "truncation"}),
            "beta": self.settings.beta,
            "train": train,
            "zero_stage": self.recipe.deepspeed.zero_stage,
        }

    def _job(self, table: PreparedTable, known: str, run: str, name: str) -> TrainingJob:
        rank = self.settings.lora_rank
        lora = None if rank is None else LoraSettings(rank=rank)
        return TrainingJob(
            model=self._start.model_copy(update={"lora": lora}),
            curriculum=CurriculumSettings(mode="sorted_dpo", order="shuffled"),
            objective=DPO(beta=self.settings.beta),
            train=self._train,
            deepspeed=self.recipe.deepspeed,
            prepared=storage.absolute(table.folder),
            reference=storage.absolute(known),
            run=run,
            fingerprint=name,
            card={"recipe": self.recipe.to_dict(), "data": table.manifest.model_dump(mode="json")},
        )


def curate_orders(
    recipe: Recipe, table: PreparedTable, settings: PerpCorrect, trusted: PreparedTable | None
) -> CuratedPairs:
    """`trusted`: a table of pairs that are right; without one, those of the largest margins are."""
    pairs = table.rows("train")
    if trusted is None:
        count = max(1, round(settings.trusted_fraction * pairs))
        clearest = np.argsort(-table.index("train").margin, kind="stable")[:count]
        rows = table.read("train", clearest)
        others = np.setdiff1d(np.arange(pairs), clearest)
    else:
        rows = trusted.read("train", np.arange(trusted.rows("train")))
        others = np.arange(pairs)
    surrogates = Surrogates(recipe, table, settings, plain_rows(rows), others)
    rounds = list(surrogates.rounds())
    best = max(range(len(rounds)), key=lambda number: rounds[number].mixture.separation)
    return curated_by_surprise(table, rounds, best, others, settings)


def curated_by_surprise(
    table: PreparedTable, rounds: list[Round], best: int, others: NDArray[np.int64], settings: PerpCorrect
) -> CuratedPairs:
    x, mixture = rounds[best].x, rounds[best].mixture
    asked = np.zeros(len(x), np.bool_)
    asked[others] = True
    wrong = asked & (x >= mixture.threshold)
    left = {"flip": 1 - mixture.separation, "drop": _left_after_dropping(mixture), "keep": mixture.noise_rate}
    scores = [table.numbers("train", f"score_{name}") for name in ("chosen", "rejected")]
    counts, edges = np.histogram(x[others], PICTURED)
    return CuratedPairs(
        kept=~wrong if settings.wrong == "drop" else np.ones(len(x), np.bool_),
        exchanged=wrong & (settings.wrong == "flip"),
        score_chosen=scores[0],
        score_rejected=scores[1],
        margin=table.index("train").margin,
        columns={"flip_probability": np.where(asked, mixture.flipped(x), 0.0)},
        facts={
            "method": "perpcorrect",
            "rounds": [one.facts() for one in rounds],
            "best": best,
            "trusted": int((~asked).sum()) if (~asked).any() else None,
            "found": int(wrong.sum()),
            "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
            "before": bounded(mixture.noise_rate),
            "noise_rate": bounded(left[settings.wrong]),
        },
    )


def _left_after_dropping(mixture: Mixture) -> float:
    """The share of flipped pairs among those below the threshold."""
    flipped = mixture.noise_rate * normal_below((mixture.threshold + mixture.mean) / mixture.deviation)
    right = mixture.right * normal_below((mixture.threshold - mixture.mean) / mixture.deviation)
    return flipped / max(flipped + right, 1e-12)


def exchanged(rows: pa.Table) -> pa.Table:
    """All of them with chosen and rejected exchanged, and ids of their own."""
    return plain_rows(with_flips(rows, np.ones(len(rows), np.bool_)))


def plain_rows(rows: pa.Table) -> pa.Table:
    """Rows without what some tables say of them beside their tokens and ratings."""
    return rows.select([*PREPARED_SCHEMA.names, *(name for name in RUNS if name in rows.column_names)])


def written_table(folder: str, rows: pa.Table, like: PreparedTable) -> PreparedTable:
    """A prepared table of these rows in random order, with nothing held out."""
    order = np.argsort(seeded_hashes(rows["pair_id"].to_pylist(), 0), kind="stable")
    rows = rows.take(order).combine_chunks()
    rows = rows.set_column(0, "position", pa.array(np.arange(len(rows))))
    if storage.exists(folder):
        storage.delete(folder)
    with atomic_folder(folder) as unfinished:
        part = write_part(unfinished, "train", rows)
        empty = PREPARED_SCHEMA.empty_table()
        seals = {
            split: write_index(unfinished, split, index_rows(of))
            for split, of in zip(SPLITS, (rows, empty), strict=True)
        }
        splits = {
            "train": SplitFacts(rows=len(rows), first_positions=(0,), seals=(part.seal,)),
            "eval": SplitFacts(rows=0),
        }
        facts = {"tokenizer": like.manifest.facts["tokenizer"]}
        commit(
            unfinished,
            Manifest(
                fingerprint="",
                splits=with_index_seals(splits, seals),
                rows_in=len(rows),
                rows_kept=len(rows),
                facts=facts,
            ),
        )
    return PreparedTable.open(folder)
