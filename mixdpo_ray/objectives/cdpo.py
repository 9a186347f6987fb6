"""Conservative DPO (Mitchell, 2023). TRL 1.x ignores label_smoothing in its plain DPO loss."""

from mixdpo_ray.objectives.label_noise import LabelNoise
from mixdpo_ray.objectives.logps import PairLogps
from mixdpo_ray.objectives.tensors import Tensor, logsigmoid


class CDPO(LabelNoise):
    """DPO with smoothed labels: a share of them counts as flipped"""

    def losses(self, pairs: PairLogps) -> Tensor:
        logit, flipped = self.logit(pairs), self.flipped
        return -(1 - flipped) * logsigmoid(logit) - flipped * logsigmoid(-logit)
