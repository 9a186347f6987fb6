"""What curating found and changed, in words and numbers, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mixdpo_ray.tables.prepared_table import PreparedTable

CURATION = "curation"  # among the facts of a table
CURATION_PICTURE = "curation.png"
LITTLE = 0.1  # of the way from chance to certainty
TAKES_RATE = "cdpo and robust_dpo"


def curation_text(facts: Mapping[str, Any], pairs: int) -> str:
    """`facts`: those that the manifest keeps; `pairs`: of the training split that was curated."""
    method = facts["method"]
    lines = {"ds2": _of_ratings, "perpcorrect": _of_surprise, "agreement": _of_raters}[method](facts, pairs)
    lines += [f"exchanged: {facts['exchanged']:,} pairs; dropped: {facts['dropped']:,}"]
    before, after = facts["before"], facts["noise_rate"]
    lines += [
        f"estimated share of pairs the wrong way round: {before:.1%} as rated, {after:.1%} as they are now; "
        f"{TAKES_RATE} take it by objective.label_smoothing=curated, or {after:.3f}"
    ]
    return "\n".join([f"curated by {method}:", *(f"  {line}" for line in lines)])


def noise_rate(table: PreparedTable) -> float | None:
    """The estimated share of pairs the wrong way round in a table whose pairs were curated; None of others."""
    facts = table.manifest.facts.get(CURATION)
    return None if facts is None else float(facts["noise_rate"])


def _of_ratings(facts: Mapping[str, Any], pairs: int) -> list[str]:
    names = [f"{value:.3g}" for value in facts["classes"]]
    median, rare, rarest = facts["rarity"]
    return [
        f"{facts['answers']:,} answers in {len(names)} classes of ratings (medians {', '.join(names)})",
        f"two neighbours have one class in {facts['neighbours_agree']:.1%}, by chance in {facts['by_chance']:.1%}"
        f"{_doubt(facts)}",
        "how often a true class (line) is rated as another (column), and how many are truly in it:",
        *_matrix(names, facts["matrix"], facts["prior"]),
        f"estimated share of wrong ratings: {facts['rated_wrong']:.1%}; found: {facts['found']:,} of "
        f"{facts['answers']:,} answers, {facts['found'] / facts['answers']:.1%}; replaced: {facts['replaced']:,}",
        f"rarity of answers: median {median:.3f}, the rarest tenth from {rare:.3f}, hundredth from {rarest:.3f}",
    ]


def _doubt(facts: Mapping[str, Any]) -> str:
    """A word where neighbours share hardly more than chance: everything else rests on it."""
    above = (facts["neighbours_agree"] - facts["by_chance"]) / max(1 - facts["by_chance"], 1e-9)
    if above >= LITTLE:
        return ""
    return "; that is little more, and what follows is not to be trusted: choose another data.curate.embedding"


def _matrix(names: Sequence[str], matrix: Sequence[Sequence[float]], prior: Sequence[float]) -> list[str]:
    width = max(6, *map(len, names))
    heading = " ".join(name.rjust(width) for name in ["", *names, "share"])
    lines = [
        " ".join([name.rjust(width), *(f"{value:{width}.3f}" for value in row), f"{share:{width}.1%}"])
        for name, row, share in zip(names, matrix, prior, strict=True)
    ]
    return [heading, *lines]


def _of_surprise(facts: Mapping[str, Any], pairs: int) -> list[str]:
    heading = "round  mean     s        right    threshold  separation"
    lines = [
        f"{number:>5}  {one['mean']:<8.4f} {one['deviation']:<8.4f} {one['right']:<8.3f} {one['threshold']:<10.4f} "
        f"{one['separation']:.4f}{'  <- decides' if number == facts['best'] else ''}"
        for number, one in enumerate(facts["rounds"])
    ]
    trusted = (
        f"{facts['trusted']:,} pairs of the largest margins" if facts["trusted"] else "the pairs of data.curate.trusted"
    )
    return [
        f"trusted at first: {trusted}",
        heading,
        *lines,
        f"found the wrong way round: {facts['found']:,} of {pairs:,} pairs",
    ]


def _of_raters(facts: Mapping[str, Any], pairs: int) -> list[str]:
    low, middle, high = facts["width"]
    return [
        f"{facts['raters']} raters disagree on {facts['found']:,} of {pairs:,} pairs, "
        f"{facts['found'] / max(pairs, 1):.1%}; most of them are against the order of {facts['against']:,}",
        f"one rater alone has {facts['error_rate']:.1%} of the orders wrong, if they err independently",
        f"spread of their margins: a tenth below {low:.3g}, half below {middle:.3g}, a tenth above {high:.3g}",
    ]
