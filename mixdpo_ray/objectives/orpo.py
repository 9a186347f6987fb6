"""ORPO (Hong et al., 2024). Its likelihood covers completions here; in TRL and the authors' code prompts as well."""

from typing import ClassVar

from pydantic import Field

from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.objective import Objective, Ranges
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class ORPO(Objective):
    """Likelihood of the chosen answer, and a logistic loss on the log of the odds ratio"""

    needs_reference: ClassVar[bool] = False
    search: ClassVar[Ranges] = {"odds_weight": {"loguniform": (0.05, 2.0)}}

    odds_weight: float = Field(0.1, gt=0, description="Weight of the odds ratio; the paper's lambda, TRL's beta")

    def losses(self, pairs: PairLogps) -> Tensor:
        log_odds = _log_odds(pairs.chosen_mean) - _log_odds(pairs.rejected_mean)
        return -pairs.chosen_mean - self.odds_weight * logsigmoid(log_odds)

    def rewards(self, pairs: PairLogps) -> tuple[Tensor, Tensor]:
        return pairs.chosen_mean, pairs.rejected_mean


def _log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)); a certain answer is held a little below 1, where the odds are infinite."""
    logp = logp.clamp_max(-1e-7)
    return logp - (-logp.expm1()).log()
