"""The closing lines of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixdpo_ray.wording import duration_text

SHOWN = {
    "eval_rewards/accuracies": "held-out preference accuracy",
    "eval_rewards/margins": "held-out reward margin",
    "eval_logps/chosen_drift": "chosen drift (nats)",
}


@dataclass(frozen=True)
class RunReport:
    folder: str  # as the person wrote it
    summary: Mapping[str, Any]
    already_finished: bool = False

    def describe(self) -> str:
        summary, folder = self.summary, self.folder
        before, after = summary["eval_before"], summary["eval_after"]
        head = "was already finished" if self.already_finished else f"finished in {duration_text(summary['seconds'])}"
        lines = [f"{folder} {head}: {summary['steps']} steps, {summary['pairs']} pairs"]
        for key, name in SHOWN.items():
            if after.get(key) is not None:
                lines.append(f"  {name:<30} {before[key]:8.3f} -> {after[key]:.3f}")
        lines.append(f"  peak memory of a worker        {summary['peak_memory_gib']:8.2f} GiB")
        lines.append(f"  model                          {folder}/model")
        lines.append(f"  picture                        {folder}/curves.png")
        return "\n".join(lines)
