"""Ratings that neighbours speak against: found, and replaced or dropped (DS2)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixdpo_ray.bar import Counter, say
from mixdpo_ray.curation.curated import CuratedPairs, bounded
from mixdpo_ray.curation.embeddings import SIDES, answer_vectors
from mixdpo_ray.curation.neighbours import Nearest, agreement_of, nearest_rows, rarity
from mixdpo_ray.curation.transition import LARGEST_SAMPLE, Transition, estimate_transition
from mixdpo_ray.curation.wrong_ratings import Verdicts, find_wrong
from mixdpo_ray.errors import DataError
from mixdpo_ray.pairs.curating import DS2
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.tables.prepared_table import PreparedTable

MORE_NEIGHBOURS = 3  # times the voters: about half of them are in an epoch's sample
FEWEST = 100  # answers, below which shares of triples say nothing
SCALE_TIE = 1e-6  # relative: margins of one scale are this exactly a multiple of the difference in ratings


@dataclass(frozen=True)
class RatedRows:
    """Answers to prompts, each once: a row of its own may stand in several pairs."""

    chosen: NDArray[np.int64]  # [pairs] row of each pair's chosen answer
    rejected: NDArray[np.int64]
    score: NDArray[np.float64]  # [rows]
    vectors: NDArray[np.float32]  # [rows, width]
    classes: NDArray[np.int64]  # [rows] among those that any row is in
    centre: NDArray[np.float64]  # [classes] the median rating of each


def curate_ratings(recipe: Recipe, table: PreparedTable, settings: DS2) -> CuratedPairs:
    """Ray must be connected."""
    _refuse_unrated(table)
    scale = _scale_of(table)
    vectors = answer_vectors(recipe, table, settings.embedding)
    rows = rated_rows(table, vectors, settings)
    if len(rows.score) < FEWEST or len(rows.centre) < 2:
        raise DataError(
            f"data.curate ds2: {len(rows.score)} different answers in {len(rows.centre)} classes of ratings are too "
            f"few to learn from neighbours: give {FEWEST} or more, and edges between their ratings"
        )
    say(f"curate: the neighbours of {len(rows.score):,} answers", meanwhile="curate: looking for neighbours")
    nearest = nearest_rows(rows.vectors, MORE_NEIGHBOURS * settings.voters)
    rounds = settings.rounds if len(rows.score) > LARGEST_SAMPLE else 1
    with Counter("transition matrix", "fit", rounds) as progress:
        transition = estimate_transition(
            rows.classes,
            nearest.rows,
            len(rows.centre),
            rounds=rounds,
            seed=settings.seed,
            heard=lambda done: progress.reach(done, rounds),
        )
    verdicts = find_wrong(
        rows.classes,
        nearest,
        transition.wrong_share,
        epochs=settings.epochs,
        voters=settings.voters,
        seed=settings.seed,
    )
    return curated_by_ratings(table, rows, transition, nearest, verdicts, settings, scale)


def rated_rows(
    table: PreparedTable, vectors: tuple[NDArray[np.float32], NDArray[np.float32]], settings: DS2
) -> RatedRows:
    scores = [table.numbers("train", f"score_{name}") for name in SIDES]
    known: dict[bytes, int] = {}
    texts = zip(*_names(table), strict=True)
    row = np.array(
        [
            [
                known.setdefault(name + np.float64(score).tobytes(), len(known))
                for name, score in zip(names, both, strict=True)
            ]
            for names, both in zip(texts, np.column_stack(scores), strict=True)
        ],
        np.int64,
    ).reshape(-1, 2)
    flat = row.T.ravel()
    first = np.zeros(len(known), np.int64)
    first[flat[::-1]] = np.arange(len(flat))[::-1]
    score = np.concatenate(scores)[first]
    folded = np.searchsorted(np.array(settings.edges), score, side="right")
    there, classes = np.unique(folded, return_inverse=True)
    centre = np.array([np.median(score[folded == one]) for one in there])
    spread = centred(np.concatenate(vectors)[first], each=settings.embedding.kind == "surprise")
    return RatedRows(row[:, 0], row[:, 1], score, spread, classes.astype(np.int64), centre)


def centred(vectors: NDArray[np.float32], *, each: bool) -> NDArray[np.float32]:
    """Vectors around their mean, without which all cosines are near 1. `each`: in units of each number's spread."""
    around = vectors - vectors.mean(0)
    spread = around.std(0)
    return np.asarray(around / np.where(spread > 0, spread, 1.0) if each else around, np.float32)


def _names(table: PreparedTable) -> tuple[list[bytes], list[bytes]]:
    """Digests of prompt and answer, of the chosen and of the rejected ones; part by part, as tokens take memory."""
    names: tuple[list[bytes], list[bytes]] = ([], [])
    for part in table.parts("train"):
        rows = table.read("train", np.arange(part.first_position, part.first_position + part.rows))
        for found, name in zip(names, SIDES, strict=True):
            for prompt, answer in zip(rows["prompt_ids"].to_pylist(), rows[f"{name}_ids"].to_pylist(), strict=True):
                text = f"{prompt} {answer}".encode()
                found.append(hashlib.blake2b(text, digest_size=16).digest())
    return names


def curated_by_ratings(
    table: PreparedTable,
    rows: RatedRows,
    transition: Transition,
    nearest: Nearest,
    verdicts: Verdicts,
    settings: DS2,
    scale: float,
) -> CuratedPairs:
    replaced = verdicts.wrong & (verdicts.confidence >= settings.confidence)
    if settings.wrong != "replace":
        replaced[:] = False
    after = np.where(replaced, rows.centre[verdicts.suggested], rows.score)
    chosen, rejected = after[rows.chosen], after[rows.rejected]
    touched = replaced[rows.chosen] | replaced[rows.rejected]
    exchanged = touched & (chosen < rejected - SCALE_TIE)  # data.negative_margin=hard keeps others as they are
    wrong = verdicts.wrong[rows.chosen] | verdicts.wrong[rows.rejected]
    kept = ~wrong if settings.wrong == "drop" else np.ones(len(wrong), np.bool_)
    before = table.index("train").margin
    margin = np.where(touched, np.abs(chosen - rejected) / scale, before)
    rare = rarity(nearest)
    wrong_way, differ = order_errors(rows, transition)
    sure = np.where(replaced, verdicts.confidence, 1.0)  # of a rating as it now stands
    left = np.where(touched, 1 - np.minimum(sure[rows.chosen], sure[rows.rejected]), wrong_way)
    weight = np.where(touched, 1.0, differ)
    same, chance = agreement_of(rows.classes, nearest)
    return CuratedPairs(
        kept=kept,
        exchanged=exchanged,
        score_chosen=chosen,
        score_rejected=rejected,
        margin=margin,
        columns={
            "doubt_chosen": verdicts.marked_share[rows.chosen],
            "doubt_rejected": verdicts.marked_share[rows.rejected],
            "rarity": np.maximum(rare[rows.chosen], rare[rows.rejected]),
        },
        facts={
            "method": "ds2",
            "edges": list(settings.edges),
            "classes": rows.centre.tolist(),
            "matrix": transition.matrix.tolist(),
            "prior": transition.prior.tolist(),
            "wrong_share": transition.wrong_share.tolist(),
            "answers": len(rows.score),
            "rated_wrong": transition.noise_rate,
            "found": int(verdicts.wrong.sum()),
            "replaced": int(replaced.sum()),
            "seen": np.bincount(rows.classes, minlength=len(rows.centre)).tolist(),
            "seen_wrong": np.bincount(rows.classes[verdicts.wrong], minlength=len(rows.centre)).tolist(),
            "neighbours_agree": same,
            "by_chance": chance,
            "rarity": [float(value) for value in np.quantile(rare, (0.5, 0.9, 0.99))],
            "before": bounded(float(wrong_way.sum() / differ.sum())),
            "noise_rate": bounded(float(left[kept].sum() / max(float(weight[kept].sum()), 1e-12))),
        },
    )


def order_errors(rows: RatedRows, transition: Transition) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(the rejected answer is truly in a better class), and P(both are in different ones): [pairs] each."""
    posterior = transition.posterior
    worse = posterior @ np.triu(np.ones_like(posterior), 1) @ posterior.T
    same = posterior @ posterior.T
    seen = rows.classes[rows.chosen], rows.classes[rows.rejected]
    return np.asarray(worse[seen]), np.asarray(1 - same[seen])


def _refuse_unrated(table: PreparedTable) -> None:
    unrated = sum(int(np.isnan(table.numbers("train", f"score_{name}")).sum()) for name in SIDES)
    if unrated:
        raise DataError(
            f"data.curate ds2 looks at the ratings of both answers, and {unrated} of {2 * table.rows('train')} lack "
            "one: let jobs/rate.py rate them, or take method perpcorrect, which reads orders alone"
        )


def _scale_of(table: PreparedTable) -> float:
    """What margins were divided by, which new ones must be too."""
    difference = table.numbers("train", "score_chosen") - table.numbers("train", "score_rejected")
    margin = table.index("train").margin
    told = (margin > 0) & (difference > 0)
    scales = difference[told] / margin[told]
    if len(scales) and scales.max() - scales.min() > SCALE_TIE * scales.max():
        raise DataError(
            "data.curate ds2 needs margins that are rating differences on one scale, and these are ranks, or of "
            "several scales: set data.margin_scale=none, and curate sources of different scales one by one"
        )
    return float(scales[0]) if len(scales) else 1.0
