"""What calls cost, and budgets that they cannot exceed: counted at the server."""

from __future__ import annotations

import pytest

from mixdpo_ray.errors import EndpointError
from mixdpo_ray.judging import client as client_module
from mixdpo_ray.judging.budget import Budget, Cost
from mixdpo_ray.judging.question import most_input_tokens, request_body
from mixdpo_ray.playground.judge_server import Faults, JudgeServer, serving
from mixdpo_ray.recipe.judge import BudgetSettings, PriceSettings
from tests.judging.questions import asked, judge_settings, questions, truth


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "LONGEST_BACK_OFF", 0.05)


def test_a_budget_of_ten_calls_is_ten_calls_at_the_server_repeated_ones_among_them() -> None:
    budget = Budget(BudgetSettings(calls=10))
    server = JudgeServer(truth, Faults(broken=0.3))
    with serving(server), pytest.raises(EndpointError) as error:
        asked(server, questions(60), budget, at_once=16, tries=20)
    assert str(error.value).startswith("budget.calls (10) does not allow another call after 10 calls, ")
    assert sum(server.asked.values()) == 10


@pytest.mark.parametrize("limits", [{"tokens": 4000}, {"price": 0.02}])
def test_a_budget_is_never_exceeded_whatever_answers_cost(limits: dict[str, float]) -> None:
    """Near its end calls wait for those under way, as each reserves an answer as long as it may be."""
    prices = PriceSettings(input=2, output=10)
    budget = Budget(BudgetSettings.model_validate(limits), prices)
    server = JudgeServer(truth, Faults(cut=0.2))
    with serving(server), pytest.raises(EndpointError, match="raise it and repeat: what was answered is kept"):
        asked(server, questions(200), budget, at_once=8, tries=20)
    most = Cost.at_most(request_body(questions(1)[0], judge_settings(server)))
    if "tokens" in limits:
        assert limits["tokens"] - most.tokens <= budget.spent.tokens <= limits["tokens"]
    else:
        assert limits["price"] - most.price(prices) <= budget.spent.price(prices) <= limits["price"]
    assert budget.reserved == Cost()


def test_answers_that_may_have_been_paid_cost_the_most_and_refused_calls_no_tokens() -> None:
    budget, question = Budget(), questions(1)
    with serving(JudgeServer(truth, Faults(cut=1.0))) as server:
        asked(server, question, budget, tries=2)
        most = most_input_tokens(request_body(question[0], judge_settings(server)))
        assert budget.spent == Cost(2, 2 * most, 128)
        server.faults = Faults(broken=1.0)
        asked(server, question, budget, tries=3)
    assert budget.spent == Cost(5, 2 * most, 128)
    asked(server, question, budget, tries=2)  # nobody is there
    assert budget.spent == Cost(7, 2 * most, 128)
