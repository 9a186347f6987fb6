"""What the page of a search says where objectives were compared: by accuracy, and by the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution

from mixdpo_ray.search.report.facts import StudyFacts
from mixdpo_ray.search.report.winner import describe_winner, doubt_across_objectives, doubt_of_winner
from tests.search.small_study import SPACE, Maker

NAME = "objective.name"
JUDGED = {"judge/win_rate": 0.9, "judge/std/win_rate": 0.4, "judge/prompts": 64.0}
BY_JUDGE = {"metrics": (("judge/win_rate", "max"),)}


def made(folder: Path, *names: str) -> Maker:
    maker = Maker.start(folder, space={**SPACE, NAME: CategoricalDistribution(["dpo", "orpo"])})
    for name in names:
        known: dict[str, Any] = {"metrics": JUDGED} if name == "dpo" else {}
        maker.add({**maker.draw(), NAME: name}, **known)
    return maker


def sentences(maker: Maker, facts: StudyFacts) -> str:
    winner = describe_winner(maker.study, facts)
    assert winner is not None
    return " ".join(winner.scores[0].sentences)


def test_accuracy_is_doubted_where_objectives_were_compared_by_it(tmp_path: Path) -> None:
    maker = made(tmp_path, "dpo", "orpo")
    doubt = doubt_across_objectives(maker.study, maker.facts())
    assert doubt is not None
    assert "tune.metric judge/win_rate decides by what models write" in doubt
    assert doubt in sentences(maker, maker.facts())
    assert doubt_across_objectives(maker.study, maker.facts(**BY_JUDGE)) is None


def test_settings_of_one_objective_are_not_doubted(tmp_path: Path) -> None:
    maker = made(tmp_path, "orpo", "orpo")
    assert doubt_across_objectives(maker.study, maker.facts()) is None


def test_the_interval_of_a_win_rate_is_over_prompts(tmp_path: Path) -> None:
    maker = made(tmp_path, "dpo")
    facts = maker.facts(**BY_JUDGE)
    half = 1.96 * 0.4 / 64**0.5
    score = maker.study.trials[0].values[0]
    assert doubt_of_winner(maker.study, facts, 0) == (
        f"95 % interval {score - half:.3f} to {min(1, score + half):.3f} of 64 held-out prompts"
    )
    assert "Measured on 64 held-out prompts" in sentences(maker, facts)
