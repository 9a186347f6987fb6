"""Robust DPO (Chowdhury et al., 2024): the expectation over flips is the loss of clean labels.

Unbounded below: a very confident policy has a loss far under 0.
"""

from mixdpo_ray.objectives.label_noise import LabelNoise
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class RobustDPO(LabelNoise):
    """DPO made unbiased against a known rate of flipped labels"""

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, flipped = self.logit(pairs), self.flipped
        return (-(1 - flipped) * logsigmoid(logit) + flipped * logsigmoid(-logit)) / (1 - 2 * flipped)
