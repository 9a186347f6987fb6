"""WPO (Zhou et al., 2024): pairs that the policy would hardly write itself count for less.

How likely an answer is, is measured against what the policy says at each token anyway: the log-prob of a token minus
the log of the sum of all squared probabilities there. That makes one more pass over the logits.
"""

from typing import ClassVar

from mixdpo_ray.objectives.log_ratio import LogRatioObjective
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class WPO(LogRatioObjective):
    """DPO with pairs weighed by how likely the policy is to write both answers, at most 1"""

    needs_typicality: ClassVar[bool] = True

    def losses(self, pairs: PairLogps) -> Tensor:
        return self._weights(pairs) * -logsigmoid(self.logit(pairs))

    def _weights(self, pairs: PairLogps) -> Tensor:
        typical = pairs.chosen_typicality, pairs.rejected_typicality
        assert typical[0] is not None, "the objective did not declare needs_typicality"
        assert typical[1] is not None
        return (typical[0] + typical[1]).detach().clamp_max(0.0).exp()
