"""What trackers show of a trial: its number, the settings that it drew, and which rung it is."""

from mixdpo_ray.search.trial import shown_in_trackers

TRIAL = {"number": 7, "folder": "trials/0007", "settings": {"objective.beta": 0.05}}


def test_a_rung_says_which_it_is_and_the_last_one_is_the_trial() -> None:
    assert shown_in_trackers(TRIAL, 1, 4) == ("trial 7, rung 1", {"trial": 7, "rung": 1, "objective.beta": 0.05})
    assert shown_in_trackers(TRIAL, 4, 4) == ("trial 7", {"trial": 7, "objective.beta": 0.05})
