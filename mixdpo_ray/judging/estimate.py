"""What questions would cost, told before anything is asked: nothing here opens a connection."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mixdpo_ray.judging.budget import NOTHING, Budget, Cost
from mixdpo_ray.judging.question import ChatQuestion, answer_address, request_body
from mixdpo_ray.judging.reply_store import ReplyStore
from mixdpo_ray.recipe.judge import PaidEndpointSettings
from mixdpo_ray.wording import duration_text


@dataclass(frozen=True)
class AskingEstimate:
    settings: PaidEndpointSettings
    questions: int
    cached: int
    cost: Cost  # where every answer is as long as it may be, and nothing is asked twice

    @property
    def seconds(self) -> float:
        """How long that takes by the server's own limits; 0 where it has none."""
        each = (
            (self.cost.calls, self.settings.requests_per_minute),
            (self.cost.tokens, self.settings.tokens_per_minute),
        )
        return max(60 * amount / limit if limit else 0.0 for amount, limit in each)

    def describe(self) -> str:
        settings = self.settings
        lines = [
            f"{self.questions:,} questions to {settings.model}, of which {self.cached:,} are answered and cost nothing",
            f"about {self.cost.describe(settings.prices)}: with answers as long as they may be, and no call repeated",
        ]
        if self.seconds:
            lines.append(f"about {duration_text(self.seconds)}, by the limits per minute")
        if lacks := Budget(settings.budget, settings.prices).lacks(self.cost):
            lines.append(f"budget.{lacks} may not be enough: it ends the job, and what was answered is kept")
        return "\n".join(lines)


def estimate(questions: Iterable[ChatQuestion], settings: PaidEndpointSettings, store: ReplyStore) -> AskingEstimate:
    """Equal questions are one. Tokens of questions are counted by their bytes, four to a token."""
    bodies = {}
    for question in questions:
        body = request_body(question, settings)
        bodies[answer_address(body, question.draw)] = body
    missing = [body for address, body in bodies.items() if address not in store]
    cost = sum(map(Cost.expected, missing), NOTHING)
    return AskingEstimate(settings, len(bodies), len(bodies) - len(missing), cost)
