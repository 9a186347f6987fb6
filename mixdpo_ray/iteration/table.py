"""The rounds as people paste them: Markdown that reads well unrendered, and a sentence on what came of them."""

from __future__ import annotations

from collections.abc import Sequence

from mixdpo_ray.iteration.results import RoundResult, best_round
from mixdpo_ray.iteration.round_judge import JudgedAgainst
from mixdpo_ray.recipe.recipe import Recipe

READ_AS = (
    "win rate: share of the judged prompts that the round's model answers better, both orders of the answers averaged; "
    "ties count half, (low to high) is a 95 % interval over prompts. A win rate over the last round's model that is "
    "not above 50.0 % ends the rounds, whatever its interval is.",
    "length: of its answers to these, in characters. rating: mean of the round's answers, by each rater. margin: "
    "median of its training pairs. refused: prompts that gave no pair, mostly for want of a better and a worse answer.",
)
BRIEF = 100  # characters: below, tenths are told
ROUND_COLUMNS = (
    "round", "win rate over the last", "win rate over the first", "length", "rating", "answers", "pairs", "ties",
    "refused", "margin", "accuracy", "seconds",
)  # fmt: skip


def outcome_text(recipe: Recipe, rounds: Sequence[RoundResult]) -> str:
    """What came of it in a sentence, and why it ended."""
    name, asked, best = recipe.output.name, recipe.answers.iterate.rounds, best_round(rounds)
    if not rounds:
        return f"{name}: no round is done"
    head = f"{name}: {len(rounds)} of {asked} rounds"
    last = rounds[-1]
    if not last.gains:
        head += f", ended by round {last.number}, which does not beat the one before it"
    if not best:
        return f"{head}; no round beats the first model"
    return f"{head}; the best is that of round {best}, {against_text(rounds[best - 1].over_first)} over the first model"


def rounds_table(rounds: Sequence[RoundResult]) -> list[str]:
    if not rounds:
        return []
    rows = [list(ROUND_COLUMNS), *(round_cells(one) for one in rounds)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:], "", *READ_AS]


def round_cells(one: RoundResult) -> list[str]:
    pairs = one.pairs
    return [
        f"{one.number}",
        against_text(one.over_last),
        against_text(one.over_first),
        length_text(one.length),
        ", ".join(f"{mean:.2f}" for mean in pairs.ratings.values()),
        f"{pairs.answers}",
        f"{pairs.trained}",
        f"{pairs.ties}",
        f"{sum(pairs.quarantined.values())}",
        f"{pairs.margins[1]:.2f}",
        "" if one.accuracy is None else f"{one.accuracy:.3f}",
        f"{one.seconds:.0f}",
    ]


def length_text(characters: float) -> str:
    return f"{characters:.0f}" if characters >= BRIEF else f"{characters:.1f}"


def against_text(judged: JudgedAgainst) -> str:
    return f"{judged.win_rate:.1%} {interval_text(judged)}"


def interval_text(judged: JudgedAgainst) -> str:
    return f"({judged.low:.1%} to {judged.high:.1%})"
