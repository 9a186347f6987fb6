"""A training whose gradient is exactly 0: it goes on to its end, and the model that it leaves has learned nothing.

A rate that is far too high saturates a model at its first step, and nothing about it is infinite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

PATIENCE = 5  # steps in a row; where the loss is 0 as well, a loss with a margin has what it wants


class IdleGradient:
    """Hears of the steps in their order. `warning`: what is to be said of them, from the first time on."""

    def __init__(self, steps: Iterable[Mapping[str, Any]] = ()):
        self.since: int | None = None
        self.warning: str | None = None
        for metrics in steps:
            self.observe(metrics)

    def observe(self, metrics: Mapping[str, Any]) -> str | None:
        """The warning, once."""
        if "kind" in metrics or self.warning:
            return None
        if metrics.get("grad_norm") != 0 or metrics.get("loss") == 0:
            self.since = None
            return None
        self.since = metrics["step"] if self.since is None else self.since
        if metrics["step"] - self.since + 1 < PATIENCE:
            return None
        self.warning = (
            f"from step {self.since} on the gradient is exactly 0 and the loss is {metrics['loss']:.4g}: nothing is "
            "learned any more; is train.optimizer.learning_rate too high, or the model damaged?"
        )
        return self.warning
