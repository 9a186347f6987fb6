"""What is installed, and the two ceilings of the device: bytes moved and bfloat16 products, on random data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
from collections.abc import Callable
from functools import partial

import torch

from tests.measure.phases import Measurement, Report
from tests.measure.timing import seconds_of

PACKAGES = ("torch", "triton", "transformers", "accelerate", "deepspeed", "ray", "trl", "peft", "liger-kernel")
WARM_UPS, TIMED = 3, 10


def run(measurement: Measurement, report: Report) -> None:
    installed = {found.metadata["Name"].lower() for found in importlib.metadata.distributions()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if name in installed}
    versions = {"python": platform.python_version(), **versions, "torch": torch.__version__}
    says = ", ".join(f"{name} {version}" for name, version in versions.items())
    report(what="versions", card=_card(measurement.device), versions=versions, says=says)
    device, sizes = measurement.device, measurement.sizes
    source = torch.rand(sizes.copied // 4, device=device)
    target = torch.empty_like(source)
    moved = 2 * sizes.copied / _median(partial(target.copy_, source), device)  # read and written
    report(what="copy", bytes_per_second=moved, says=f"{moved / 1e12:.3g} TB/s read and written")
    del source, target
    left, right = (torch.randn(sizes.matrix, sizes.matrix, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(left)
    flops = 2 * sizes.matrix**3 / _median(partial(torch.mm, left, right, out=product), device)
    report(
        what=f"bf16 product of {sizes.matrix} x {sizes.matrix}",
        flops_per_second=flops,
        says=f"{flops / 1e12:.3g} TFLOP/s",
    )


def _card(device: str) -> str:
    if device == "cpu":
        return f"{os.cpu_count()} CPUs, no GPU"
    card = torch.cuda.get_device_properties(device)
    return f"{card.name}, {card.total_memory / 2**30:.0f} GiB"


def _median(thing: Callable[[], object], device: str) -> float:
    return statistics.median(seconds_of([thing] * (WARM_UPS + TIMED), device)[WARM_UPS:])
