"""Few trials end where many are stopped early: then settings are compared at a rung that more of them ran."""

from __future__ import annotations

from pathlib import Path

from mixdpo_ray.search.report.comparable import Compared, comparable
from tests.search.small_study import SPACE, Maker, make_search
from tests.search.written_page import written


def stopped_early(folder: Path) -> Maker:
    """Two trials to the end, four through one rung; their scores are the maker's own."""
    maker = Maker.start(folder)
    for _ in range(2):
        maker.add(maker.draw())
    for _ in range(4):
        maker.add(maker.draw(), "PRUNED", rungs=1)
    return maker


def test_where_most_trials_were_stopped_settings_are_compared_by_a_rung_that_all_ran(tmp_path: Path) -> None:
    maker = stopped_early(tmp_path)
    found = comparable(maker.study, maker.facts())
    compared, note = found.study, found.note
    assert [trial.value for trial in compared.trials] == [trial.intermediate_values[1] for trial in maker.study.trials]
    assert [trial.number for trial in compared.trials] == [0, 1, 2, 3, 4, 5]  # by which the winner is found
    assert note is not None
    assert note.startswith("Only 2 of the trials ran to the end")
    assert "after rung 1 of 3 (14 steps), which 6 trials reached" in note


def test_the_page_says_so_and_draws_what_two_trials_could_not_show(tmp_path: Path) -> None:
    maker = stopped_early(tmp_path)
    page = written(maker.study, maker.facts(), tmp_path)
    assert "which 6 trials reached" in page.words
    assert {"importances", "slices", "parallel"} <= set(page.anchors)


def test_a_study_in_which_many_trials_ended_is_compared_by_its_own_scores(tmp_path: Path) -> None:
    maker = make_search(tmp_path)
    assert comparable(maker.study, maker.facts()) == Compared(maker.study, maker.facts())


def test_five_trials_that_ended_are_enough_to_compare_by_what_they_came_to(tmp_path: Path) -> None:
    maker = stopped_early(tmp_path)
    for _ in range(3):
        maker.add(maker.draw())
    assert comparable(maker.study, maker.facts()).note is None


def test_captions_axes_and_the_head_of_importance_name_the_rung_that_scores_are_of(tmp_path: Path) -> None:
    maker = stopped_early(tmp_path)
    page = written(maker.study, maker.facts(), tmp_path)
    assert "Why it won" not in page.words
    assert "importance after rung 1 of 3" in page.words
    for caption in (
        "Colour is the score after rung 1 of 3, each dot a trial that came so far",
        "The score after rung 1 of 3 against",
        "from the rest, by the score after rung 1 of 3",
        "colour, by the score after rung 1 of 3",
    ):
        assert caption in page.words
    axes = [figure["layout"].get("yaxis", {}).get("title", {}).get("text") for figure in page.figures]
    assert axes.count("after rung 1 of 3") == len(SPACE)
