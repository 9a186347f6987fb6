"""What some work in some seconds comes to, per token and as a share of the ceilings."""

from __future__ import annotations

from tests.measure.flops import DATASHEET, Work
from tests.measure.phases import Measurement, Result
from tests.measure.sizes import Shape


def rates(
    measurement: Measurement, shape: Shape, work: Work, seconds: float, sequence_tokens: int | None = None
) -> Result:
    """MFU over the datasheet's number, which is a GPU's, and over the product that was measured before.

    Times are per token of the sequences, which may be more than are run.
    """
    flops = work.flops(shape) / seconds
    measured = measurement.last("ceilings", "flops_per_second")
    return {
        "us_per_token": seconds / (sequence_tokens or work.tokens) * 1e6,
        "flops_per_second": flops,
        **({"mfu": flops / DATASHEET} if measurement.on_gpu else {}),
        **({"mfu_of_measured": flops / measured} if measured else {}),
    }
