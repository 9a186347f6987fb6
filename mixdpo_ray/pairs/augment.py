"""Reward-augmented data: a pair twice, each under a system prompt that states the rating to achieve.

Asked for the rating of the chosen answer, the chosen one is preferred; asked for that of the rejected answer, the
rejected one is. The margin of both copies is that of the pair. A tie would become two copies that contradict each other
(arXiv 2410.08067). Trained so, a model is asked for the highest rating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mixdpo_ray.pairs.pair import Message, Pair

GOAL = "Answer so that your reply would be rated {score:g}, where higher ratings are better."


def reward_augmented(pair: Pair) -> list[Pair] | str:
    """Both copies, or a reason of checking.REASONS."""
    if math.isnan(pair.score_chosen) or math.isnan(pair.score_rejected):
        return "no_ratings_to_state"
    if pair.score_chosen == pair.score_rejected:
        return "tie_not_augmented"
    notes = (*pair.notes, "augmented")
    wanted = replace(pair, prompt=asked_for(pair.prompt, pair.score_chosen), group=pair.prompt_id, notes=notes)
    unwanted = replace(wanted.exchanged, prompt=asked_for(pair.prompt, pair.score_rejected))
    return [wanted, unwanted]


def asked_for(prompt: Sequence[Message], score: float) -> tuple[Message, ...]:
    """A system prompt of the pair's own follows the goal: templates take one."""
    goal = GOAL.format(score=score)
    own, turns = (prompt[0], prompt[1:]) if prompt[0]["role"] == "system" else (None, prompt)
    text = goal if own is None else f"{goal}\n\n{own['content']}"
    return (Message(role="system", content=text), *turns)
