"""Few trials end where many are stopped early: then settings are compared at a rung that more of them ran."""

from __future__ import annotations

from pathlib import Path

from mixdpo_ray.search.report.comparable import comparable
from tests.search.small_study import Maker, make_search
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
    compared, note = comparable(maker.study, maker.facts())
    assert [trial.value for trial in compared.trials] == [trial.intermediate_values[1] for trial in maker.study.trials]
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
    assert comparable(maker.study, maker.facts()) == (maker.study, None)
