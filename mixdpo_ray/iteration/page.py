"""iterations/<name>/report.html: one file that opens offline and shows what each round gave."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence

from mixdpo_ray.iteration.picture import rounds_picture
from mixdpo_ray.iteration.results import EVEN, RoundResult, best_round
from mixdpo_ray.iteration.table import READ_AS, ROUND_COLUMNS, interval_text, length_text, outcome_text, round_cells
from mixdpo_ray.objectives.by_name import objective_name
from mixdpo_ray.pages import rendered_page
from mixdpo_ray.pairs.checking import REASONS
from mixdpo_ray.recipe.recipe import Recipe


def rounds_page(recipe: Recipe, rounds: Sequence[RoundResult], folder: str, best_model: str) -> bytes:
    best = best_round(rounds)
    return rendered_page(
        "mixdpo_ray.iteration",
        "report.html.j2",
        name=recipe.output.name,
        headline=f"Round {best} is the best"
        if best
        else "No round beats the first model"
        if rounds
        else "No round yet",
        outcome=outcome_text(recipe, rounds),
        tiles=_tiles(rounds, best),
        sentences=_sentences(rounds, best),
        picture=base64.b64encode(rounds_picture(rounds, "svg")).decode(),
        columns=ROUND_COLUMNS,
        rows=[(one.number == best, round_cells(one)) for one in rounds],
        read_as=READ_AS,
        refused=_refused(rounds),
        facts=_facts(recipe, rounds, folder, best_model),
    )


def _tiles(rounds: Sequence[RoundResult], best: int) -> list[tuple[str, str, str]]:
    """Name, value and doubt, of the best round or else of the last one."""
    if not rounds:
        return []
    one = rounds[(best or len(rounds)) - 1]
    length = one.length / one.first_length - 1 if one.first_length else math.nan
    return [
        ("win rate over the first model", f"{one.over_first.win_rate:.1%}", interval_text(one.over_first)),
        ("over the round before", f"{one.over_last.win_rate:.1%}", interval_text(one.over_last)),
        ("length of its answers", "" if math.isnan(length) else f"{length:+.0%}", "against the first model"),
    ]


def _sentences(rounds: Sequence[RoundResult], best: int) -> list[str]:
    """How sure it is, and what else a reader should know before a model is taken."""
    found = []
    if rounds and not rounds[-1].gains:
        last = rounds[-1]
        sure = "and its interval says so too" if last.over_last.high < EVEN else "which may be chance"
        found.append(
            f"Round {last.number} ended it: its model wins {last.over_last.win_rate:.1%} of the prompts over the one "
            f"before it, {sure}."
        )
    unsure = [f"{one.number}" for one in rounds[:best] if one.over_last.low <= EVEN]
    if unsure:
        found.append(
            f"Round {', '.join(unsure)} beats the one before it by less than its interval: more judged prompts would "
            "tell whether it does."
        )
    if best:
        one = rounds[best - 1]
        found.append(
            f"With lengths made equal its model wins {one.over_first.length_controlled:.1%} over the first one "
            f"(answers of {length_text(one.length)} and {length_text(one.first_length)} characters)."
        )
    flips = max((max(one.over_last.flip_rate, one.over_first.flip_rate) for one in rounds), default=0.0)
    if flips:
        found.append(f"The judge changed its mind with the order of the answers for up to {flips:.1%} of the prompts.")
    if missing := sum(sum(one.over_last.missing.values()) for one in rounds):
        found.append(f"{missing} verdicts over last rounds' models are missing; no rate counts them.")
    return found


def _refused(rounds: Sequence[RoundResult]) -> list[tuple[str, list[str]]]:
    """Each reason in words, and how many prompts of each round."""
    reasons = dict.fromkeys(reason for one in rounds for reason in one.pairs.quarantined)
    counts = {reason: [f"{one.pairs.quarantined.get(reason, 0):,}" for one in rounds] for reason in reasons}
    return [(REASONS.get(reason, reason), by_round) for reason, by_round in counts.items()]


def _facts(recipe: Recipe, rounds: Sequence[RoundResult], folder: str, best_model: str) -> dict[str, str]:
    asked, sample = recipe.answers.iterate, recipe.answers.sample
    first = "the first model, in all rounds" if asked.reference == "first" else "the model that each round begins with"
    judged = rounds[0].over_last.prompts if rounds else asked.judged
    more = f"the same command with answers.iterate.rounds={max(asked.rounds, len(rounds) + 1)}"
    return {
        "best model": best_model,
        "first model": recipe.model.path,
        "a round": f"{sample.answers_each} answers to {asked.prompts_each:,} prompts",
        "pairs": recipe.data.pair.rule or "the best answer against the worst",
        "objective": f"{objective_name(recipe.objective)}, {recipe.curriculum.mode}",
        **({"held close to": first} if recipe.needs_reference else {}),
        "judged": f"on {judged:,} prompts that no round trains on, in both orders",
        "judge": ", ".join(dict.fromkeys(one.judge for one in rounds)),
        **({"more rounds": more} if not rounds or rounds[-1].gains else {}),
        "kept in": folder,
    }
