from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from mixdpo_ray.intervals import wilson
from mixdpo_ray.search.report.importances import importance_by_setting
from mixdpo_ray.search.report.page import write_report
from mixdpo_ray.search.report.scores import short_names
from tests.search.small_study import (
    BETA,
    OWN,
    RATE,
    SPACE,
    THRESHOLD,
    Maker,
    make_conditional,
    make_search,
    make_two_objectives,
)
from tests.search.written_page import WrittenPage, written

EVERY_FIGURE = {"importances", "map", "slices", "parallel", "curves", "rungs", "history", "cost", "timeline"}
MARKUP = "<img src=x onerror=alert(1)>\"'&amp;</script><script>alert(2)</script>"


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return make_search(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def page(search: Maker) -> WrittenPage:
    return written(search.study, search.facts(), search.folder)


def test_the_page_shows_every_figure_of_a_search(page: WrittenPage) -> None:
    assert page.anchors >= EVERY_FIGURE
    assert len(page.figures) == len(EVERY_FIGURE) - 1 + len(SPACE)  # a slice for each setting
    assert "left out" not in page.words


def test_the_page_refers_to_nothing_outside_itself(page: WrittenPage) -> None:
    assert {reference for reference in page.references if not reference.startswith("#")} == {"data:,"}
    assert {reference[1:] for reference in page.references if reference.startswith("#")} <= page.anchors
    assert page.policy.startswith("default-src 'none'")  # a browser would refuse to fetch anything
    assert "url(" not in page.styles
    assert "@import" not in page.styles
    library, own = page.scripts
    assert "plotly.js v" in library[:200]
    assert "http" not in own


def test_the_headline_names_the_winner_its_doubt_and_the_gain_over_the_recipes_own_settings(tmp_path: Path) -> None:
    """0.9 of 900 pairs: the standard error is sqrt(0.9 * 0.1 / 900) = 0.01."""
    study = optuna.create_study(direction="maximize")
    for value in (0.8, 0.9, 0.895):
        metrics = {"eval_pairs/margin_0-0.5": 400, "eval_pairs/margin_0.5-1": 500, "eval_pairs/other": 7}
        trial = optuna.trial.create_trial(value=value, user_attrs={"metrics": metrics})
        study.add_trial(trial)
    words = written(study, Maker.start(tmp_path).facts(best=1), tmp_path).words
    assert "Trial 1 won" in words
    assert "0.9000 ± 0.0100" in words
    assert "± is one standard error over the 900 held-out pairs" in words
    assert "+0.1000" in words
    assert "Measured on 900 held-out pairs" in words
    assert f"{0.1 / math.hypot(0.01, math.sqrt(0.8 * 0.2 / 900)):.1f} standard errors of the difference" in words
    assert "Within one standard error of it: trial 2" in words
    assert "best of 3 scores" in words


def test_a_trial_that_breaks_the_guard_is_no_rival_and_is_crossed_out(tmp_path: Path) -> None:
    maker = Maker.start(tmp_path)
    maker.add(OWN, guard=[-1.0])
    for guard in (2.0, -1.0, -1.0, 3.0):
        maker.add({**OWN, RATE: maker.draw()[RATE]}, guard=[guard])
    page = written(maker.study, maker.facts(best=0, guard="eval_logps/chosen_drift >= -20"), tmp_path)
    assert "It keeps the guard eval_logps/chosen_drift >= -20 with -9.3" in page.words
    assert "best of 3 scores" in page.words
    assert page.words.count(", breaks guard") == 2
    crossed = [trace for figure in page.figures for trace in figure["data"] if is_crossed(trace)]
    assert {len(trace["x"]) for trace in crossed} == {2}


def is_crossed(trace: dict[str, Any]) -> bool:
    return bool(trace.get("marker", {}).get("symbol") == "x")


def test_an_interval_stays_within_0_and_1_and_does_not_vanish_there() -> None:
    low, high = wilson(1.0, 100)
    assert high == pytest.approx(1.0)
    assert low == pytest.approx(100 / (100 + 1.96**2))  # Wilson's, worked out for a share of 1
    assert wilson(0.5, 10_000) == pytest.approx((0.5 - 1.96 * 0.005, 0.5 + 1.96 * 0.005), abs=1e-5)


def test_the_commands_and_the_account_are_on_the_page(search: Maker, page: WrittenPage) -> None:
    facts = search.facts()
    for text in (
        facts.train_command,
        facts.tune_command,
        facts.resources,
        "4,980",
        "reference models loaded by trials",
    ):
        assert text in page.words


def test_what_failed_is_listed_with_its_reason_and_what_was_continued_did_not_fail(page: WrittenPage) -> None:
    failed = page.words.rpartition("What failed and why")[2]
    assert "the loss of step 17 is not finite (nan); nothing was updated" in failed
    assert "the driver ended while the trial ran" not in failed
    assert "1 failed" in page.words
    assert ", continued once" in page.words


def test_a_study_in_which_everything_failed_still_has_a_page_that_says_why(tmp_path: Path) -> None:
    maker = Maker.start(tmp_path)
    for _ in range(3):
        maker.add(maker.draw(), "FAIL", 1, reason="the GPU has fallen off the bus")
    page = written(maker.study, maker.facts(), tmp_path)
    assert "No trial can be used" in page.words
    assert page.words.count("the GPU has fallen off the bus") == 3
    assert "Which settings mattered is left out: it needs 4 scored trials or more, and the study has none" in page.words
    assert page.anchors >= {"curves", "cost", "timeline"}  # these can be drawn
    assert "best.yaml" in page.words


def test_a_study_without_trials_has_a_page(tmp_path: Path) -> None:
    page = written(Maker.start(tmp_path).study, Maker.start(tmp_path).facts(), tmp_path)
    assert "No trial has run yet" in page.words
    assert page.figures == []
    assert page.scripts == []  # nothing to draw, no library to draw it with


def test_one_trial_is_its_own_winner_and_nothing_is_compared(tmp_path: Path) -> None:
    maker = Maker.start(tmp_path)
    maker.add(OWN)
    page = written(maker.study, maker.facts(), tmp_path)
    assert "Trial 0 won" in page.words
    assert "These are the recipe's own settings" in page.words
    assert not {"history", "importances", "map", "slices", "parallel"} & page.anchors
    assert "curves" in page.anchors


def written_with_scores(folder: Path, values: list[float]) -> WrittenPage:
    maker = Maker.start(folder)
    for value in values:
        trial = optuna.trial.create_trial(value=value, params=maker.draw(), distributions=dict(SPACE))
        maker.study.add_trial(trial)
    return written(maker.study, maker.facts(), folder)


def test_scores_that_mostly_agree_leave_the_importances_out_and_their_column(tmp_path: Path) -> None:
    page = written_with_scores(tmp_path, [0.9, *[0.5] * 8])
    assert "Which settings mattered is left out: too many trials share the same score" in page.words
    assert "importance" not in page.words
    assert page.anchors >= {"map", "slices", "parallel", "history"}


def test_figures_of_scores_that_are_all_equal_are_left_out(tmp_path: Path) -> None:
    """They were one flat square, one flat line and lines of one colour."""
    page = written_with_scores(tmp_path, [0.5] * 9)
    assert not page.anchors & {"importances", "map", "slices", "parallel", "history"}
    assert page.words.count("is left out: every compared trial has the same score") == 4


def test_a_search_of_one_setting_says_what_cannot_be_drawn(tmp_path: Path) -> None:
    maker = Maker.start(tmp_path, space={RATE: SPACE[RATE]})
    for _ in range(6):
        maker.add(maker.draw())
    page = written(maker.study, maker.facts(), tmp_path)
    assert "is left out: fewer than two settings differ" in page.words
    assert "is left out: no two settings differ together" in page.words
    assert page.anchors >= {"slices", "parallel"}


def test_a_setting_with_markup_is_shown_and_not_run(tmp_path: Path) -> None:
    space = {"data.prompt": CategoricalDistribution([MARKUP, "plain"]), RATE: SPACE[RATE]}
    maker = Maker.start(tmp_path, space=space)
    for number in range(8):
        maker.add({**maker.draw(), "data.prompt": MARKUP if number % 2 else "plain"})
    maker.add(maker.draw(), "FAIL", 1, reason=MARKUP)
    page = written(maker.study, maker.facts(name=MARKUP, train_command=MARKUP, counters={MARKUP: MARKUP}), tmp_path)
    assert page.words.count(MARKUP) > 8  # the parser gives back what a reader sees
    assert "img" not in page.tags
    assert len(page.scripts) == 2
    assert page.figures
    texts = [text for figure in page.figures for text in texts_of(figure)]
    assert not [text for text in texts if "<img" in text or "<script" in text]  # plotly would read them as markup
    assert any("&lt;img" in text for text in texts)


def texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in texts_of(one)]


def test_two_objectives_have_a_front_and_each_figure_twice(tmp_path: Path) -> None:
    maker = make_two_objectives(tmp_path)
    page = written(maker.study, maker.facts(), tmp_path)
    assert page.anchors >= {"pareto", *EVERY_FIGURE} - {"rungs"}
    assert f"Trial {maker.facts().best} was chosen from a front of {len(maker.study.best_trials)}" in page.words
    assert "is left out: a search for two metrics at once stops no trial early" in page.words
    # front, parallel, curves, cost and timeline once; importances, map and history per metric; slices of 4 settings too
    assert len(page.figures) == 5 + 2 * 3 + 2 * 4
    front = {trace.get("name"): trace for trace in page.figures[0]["data"]}["no trial is better in both"]
    assert len(front["text"]) == len(maker.study.best_trials)


def test_a_conditional_space_is_drawn_for_the_trials_that_have_each_setting(tmp_path: Path) -> None:
    maker = make_conditional(tmp_path)
    page = written(maker.study, maker.facts(), tmp_path)
    assert page.anchors >= EVERY_FIGURE
    assert "None: it has no such setting" in page.words
    assert {"beta [dpo]", "beta [simpo]"} <= {text for figure in page.figures for text in texts_of(figure)}


def test_the_setting_that_the_scores_depend_on_most_is_the_most_important(tmp_path: Path) -> None:
    maker = Maker.start(tmp_path)
    for _ in range(60):
        maker.add(maker.draw(), rungs=3)
    weights = importance_by_setting(maker.study, maker.facts())
    assert max(weights, key=weights.__getitem__) == RATE
    assert sum(weights.values()) == pytest.approx(1)


def test_names_are_as_short_as_they_can_be_told_apart() -> None:
    names = [THRESHOLD, BETA, "objective.name", "a.rate", "b.rate", "objective.beta [ipo]"]
    assert list(short_names(names).values()) == [
        "threshold.value", "beta", "objective.name", "a.rate", "b.rate", "beta [ipo]",
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
def test_whatever_the_trials_hold_the_page_is_written(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    directions = ["maximize", "minimize"][: chance.choice([1, 1, 2])]
    maker = Maker.start(tmp_path, directions)
    odd = {"a.kind": CategoricalDistribution([None, True, 1, "<b>"]), "a.same": FloatDistribution(2, 2), **SPACE}
    for number in range(chance.choice([1, 2, 3, 5, 9])):
        names = [name for name in odd if chance.random() < 0.7]
        single = Maker.start(tmp_path, space={name: odd[name] for name in names})
        state = chance.choice(["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAIL", "RUNNING"])
        values = [chance.choice([0.5, chance.random(), math.inf]) for _ in directions]
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            values=values if state == "COMPLETE" else None,
            params={name: chance.choice([2.0, 2.0]) if name == "a.same" else single.draw()[name] for name in names},
            distributions={name: odd[name] for name in names},
            intermediate_values={1: chance.choice([0.4, math.nan])} if chance.random() < 0.5 else {},
            user_attrs={"guard": [chance.uniform(-1, 1)]} if chance.random() < 0.3 else {},
        )
        if number and chance.random() < 0.2:
            trial.set_user_attr("continues", number - 1)
        maker.study.add_trial(trial)
    metrics = tuple((f"eval_{number}", way[:3]) for number, way in enumerate(directions))
    page = written(maker.study, maker.facts(metrics=metrics, best=chance.choice([None, 0])), tmp_path)
    assert {"trials", "account"} <= page.anchors


def test_without_plotly_the_page_says_how_to_get_its_figures(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["plotly"] = None  # as where the extra is not installed
import optuna
from mixdpo_ray.search.report.page import StudyFacts, write_report
study = optuna.create_study(direction="maximize")
study.add_trial(optuna.trial.create_trial(value=0.5))
write_report(study, StudyFacts("a", "a", (("b", "max"),), None, 0, "c", "d", (), "e", {}), sys.argv[1])
"""
    target = str(tmp_path / "report.html")
    subprocess.run([sys.executable, "-c", program, target], check=True, cwd=Path(__file__).parents[2])
    text = (tmp_path / "report.html").read_text()
    assert "mixdpo_ray[report]" in text
    assert "Trial 0 won" in text


def test_a_page_is_replaced_and_not_appended_to(search: Maker, tmp_path: Path) -> None:
    target = tmp_path / "a" / "report.html"
    for _ in range(2):
        write_report(search.study, search.facts(), str(target))
    assert target.read_text().count("<!doctype html>") == 1
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
