"""Losses and gradients of one window on the device against float32 on the CPU, and ln 2 before the first step.

float32 on the device must give the CPU's numbers. What bfloat16 may differ by depends on depth and weights; so it is
measured: its gradient may be off by a hundredth, or by half as much again as bfloat16's on the CPU.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from mixdpo_ray.objectives.dpo import DPO
from mixdpo_ray.tables.prepared_table import PreparedTable
from mixdpo_ray.training.batch import References, TokenRows, build_batch
from mixdpo_ray.training.logps import Scorer, pair_logps
from tests.measure.inputs import BETA, SHALLOW
from tests.measure.phases import Measurement, Report

PAIRS = 4  # a CPU must follow
FLOAT32, BFLOAT16, EXCESS, LN_2 = 1e-4, 1e-2, 1.5, 1e-2


def run(measurement: Measurement, report: Report) -> None:
    device = measurement.device
    truth = _window(measurement, "cpu", "float32")
    rounded = _errors(_window(measurement, "cpu", "bfloat16"), truth)
    for dtype, packed in product(("float32", "bfloat16"), (False, True)):
        found = _window(measurement, device, dtype, packed=packed)
        errors = _errors(found, truth)
        allowed = FLOAT32 if dtype == "float32" else max(BFLOAT16, EXCESS * rounded["gradient"])
        wrong = [f"{name} of {dtype} is off by {error:.2g}" for name, error in errors.items() if not error <= allowed]
        gap = abs(found["loss"].item() - math.log(2))
        if dtype == "bfloat16" and not gap <= LN_2:  # the references are bfloat16's
            wrong.append(f"the loss before the first step is ln 2 and {gap:.2g}")
        says = ", ".join(f"{name} off by {error:.1e}" for name, error in errors.items())
        report(
            what=f"{dtype}{', packed' * packed} on the device, float32 on the CPU",
            errors=errors,
            allowed=allowed,
            ln2_gap=gap,
            wrong=wrong,
            says=f"{says} (allowed {allowed:.1e}); loss - ln 2 = {gap:.1e}",
        )


def _window(measurement: Measurement, device: str, dtype: str, *, packed: bool = False) -> dict[str, Tensor]:
    """Log-probs, loss and gradients, in double precision on the CPU."""
    folder = measurement.work / SHALLOW
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=getattr(torch, dtype)).to(device)
    table = PreparedTable.open(str(folder / "table"))
    positions = np.arange(PAIRS)
    batch = build_batch(
        TokenRows.of(table.read("train", positions), positions),
        positions,
        np.zeros(len(positions), np.bool_),
        References.of(str(folder / "reference"), table.index("train")),
        weight=1.0,
        padding=0,
        device=torch.device(device),
        rows="packed" if packed else "grouped",
    )
    pairs = pair_logps(Scorer(model, packing=packed), batch).easy
    loss = DPO(beta=BETA).losses(pairs).mean()
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    together = torch.cat([gradient.flatten().double().cpu() for gradient in gradients])
    logps = torch.cat([pairs.chosen, pairs.rejected]).detach().double().cpu()
    return {"loss": loss.detach().double().cpu(), "logps": logps, "gradient": together}


def _errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, float]:
    """Of log-probs and gradients, by their norms."""
    return {name: float((found[name] - truth[name]).norm() / truth[name].norm()) for name in ("logps", "gradient")}
