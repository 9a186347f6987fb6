"""The arithmetic of the rungs' benchmark; the benchmark itself is run by hand."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from tests.measure.rungs_halving import REDUCTION, Candidate, halve, halve_together, promoted, ranks, regret, spearman
from tests.measure.rungs_report import candidates
from tests.measure.rungs_training import without_ties


def test_equal_values_share_the_mean_of_their_ranks() -> None:
    """10 is the first; both 20 are second and third; 30 is the fourth."""
    assert ranks([20, 10, 30, 20]).tolist() == [2.5, 1, 4, 2.5]


def test_the_rank_correlation_of_four_numbers_is_worked_by_hand() -> None:
    """Ranks 1 2 3 4 and 2 1 4 3 differ by 1 each: 1 - 6 * 4 / (4 * (16 - 1)) = 0.6."""
    assert spearman([1, 2, 3, 4], [0.2, 0.1, 0.9, 0.3]) == pytest.approx(0.6)


def test_the_rank_correlation_with_a_tie_is_worked_by_hand() -> None:
    """About their means the ranks are -1 0 1 and -0.5 -0.5 1: 1.5 / sqrt(2 * 1.5) = 0.866."""
    assert spearman([1, 2, 3], [5, 5, 6]) == pytest.approx(math.sqrt(3) / 2)


def test_the_rank_correlation_sees_order_alone() -> None:
    assert spearman([1, 2, 3], [1, 10, 1000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 0, -8]) == pytest.approx(-1)
    assert math.isnan(spearman([1, 2, 3], [4, 4, 4]))


def test_the_best_third_of_a_rung_is_promoted_and_the_best_of_fewer_than_six() -> None:
    assert promoted(0.5, [0.5])
    assert not promoted(0.5, [0.6, 0.5])
    assert not promoted(0.5, [0.6, 0.5, 0.4, 0.3, 0.2])  # 5 // 3 = 1
    assert promoted(0.5, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1])  # 6 // 3 = 2
    assert promoted(0.6, [0.6, 0.6])  # a tie for the last place is enough


FIRST = Candidate((0.5, 0.5, 0.5), (1, 3, 9))
WORSE = Candidate((0.4, 0.9, 0.9), (1, 3, 9))
BETTER = Candidate((0.6, 0.6, 0.8), (1, 3, 9))


def test_halving_pays_for_what_it_trains_and_returns_the_best_that_reached_the_end() -> None:
    """The first is promoted for want of others, 13; the worse one stops at once, 1; the better one goes on, 13."""
    outcome = halve([FIRST, WORSE, BETTER], 100)
    assert (outcome.choice, outcome.tried, outcome.finished, outcome.spent) == (2, 3, 2, 27)


@pytest.mark.parametrize(
    ("budget", "choice", "finished"),
    [(0.5, None, 0), (1, 0, 0), (12.9, 0, 0), (13, 0, 1), (15, 0, 1), (26.9, 0, 1), (27, 2, 2)],
)
def test_halving_stops_before_the_rung_that_would_cost_more_than_is_left(
    budget: float, choice: int | None, finished: int
) -> None:
    outcome = halve([FIRST, WORSE, BETTER], budget)
    assert (outcome.choice, outcome.finished) == (choice, finished)
    assert outcome.spent <= budget


def test_halving_together_sends_a_third_on() -> None:
    """Six pay 1 each; the best two of them 3 each; of these the better one 9: 6 + 6 + 9 = 21."""
    candidates = [FIRST, WORSE, BETTER, WORSE, WORSE, WORSE]
    assert halve_together(candidates) == (2, 21)
    assert halve_together([FIRST, WORSE]) == (0, 2 + 3 + 9)


def test_regret_is_what_the_returned_one_lacks_to_the_best_of_all() -> None:
    """WORSE would have ended best, 0.9: its first rung hid it."""
    found = [FIRST, WORSE, BETTER]
    assert regret(found, [0, 1, 2], 100)[0] == pytest.approx(0.9 - 0.8)
    assert regret(found, [1, 0, 2], 100)[0] == 0
    assert regret(found, [0, 1, 2], 20)[0] == pytest.approx(0.9 - 0.5)
    assert regret(found, [0, 1, 2], 0.5)[0] == pytest.approx(0.9 - 0.8)  # nothing trained: the median one


def test_the_simulation_stops_the_trials_that_optuna_stops() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scores = np.random.default_rng(0).integers(0, 20, (60, 3)) / 20  # coarse, so that there are ties
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    reached = []
    for row in scores:
        trial = study.ask()
        for rung, score in enumerate(row):
            trial.report(float(score), REDUCTION**rung)
            if rung == 2 or trial.should_prune():
                break
        reached.append(rung + 1)
        study.tell(trial, float(row[rung]))
    candidates = [Candidate(tuple(map(float, row)), (1, 1, 1)) for row in scores]
    spent = [halve(candidates[: number + 1], math.inf).spent for number in range(len(candidates))]
    assert np.diff([0, *spent]).tolist() == reached
    assert set(reached) == {1, 2, 3}


def line(thin: int, *ends: tuple[float, int, float]) -> dict[str, object]:
    """Of a training: after which share of its steps, with how many tokens, which score."""
    evaluations = [{"share": share, "tokens": tokens, "all": score} for share, tokens, score in ends]
    return {"seed": 7, "configuration": 0, "thin": thin, "evaluations": evaluations}


def test_a_naive_run_continues_where_a_safe_one_starts_anew() -> None:
    whole = line(1, (0, 0, 0.5), (0.11, 10, 0.6), (0.22, 20, 0.1), (0.33, 30, 0.7), (1, 90, 0.8))
    found = candidates(
        [whole, line(3, (0, 0, 0.5), (1, 32, 0.75)), line(9, (0, 0, 0.5), (1, 12, 0.65))], "all", "tokens", 1
    )
    assert found[7][0] == {
        "naive": Candidate((0.6, 0.7, 0.8), (10, 20, 60)),
        "safe": Candidate((0.65, 0.75, 0.8), (12, 32, 90)),
        "none": Candidate((0.8,), (90,)),
    }


def test_a_seed_counts_when_all_its_trainings_have_ended() -> None:
    assert candidates([line(1, (1, 90, 0.8)), line(3, (1, 32, 0.75))], "all", "tokens", 1) == {}


def test_ties_are_left_out_by_their_number() -> None:
    """(0.6 * 30 + 0.9 * 10) / 40 = 0.675, whatever the 20 ties say."""
    name = "eval_rewards/accuracies"
    accuracies = {f"{name}/margin_0-0.5": 0.1, f"{name}/margin_0.5-1": 0.6, f"{name}/margin_1-2": 0.9}
    counts = {"eval_pairs/margin_0-0.5": 20, "eval_pairs/margin_0.5-1": 30, "eval_pairs/margin_1-2": 10}
    assert without_ties({name: 0.5, **accuracies, **counts}) == pytest.approx(0.675)
