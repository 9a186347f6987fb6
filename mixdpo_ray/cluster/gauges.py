"""Numbers of a training for the dashboards of its cluster: Ray exports them to Prometheus beside its own, as ray_NAME.

The run's actor sets them, which hears of every step, and of all trials of a study. A node exports them at Ray's own
port for metrics every ten seconds; nothing listens for their sake. jobs/clusters/grafana-dashboard.json shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ray.util.metrics import Gauge

from mixdpo_ray.cluster.events import CheckpointSaved, Evaluated, Event, StepTaken

TAGS: Final = ("run", "study", "trial")
OF_STEPS = {  # gauge -> the metric of a step, and what it is
    "mixdpo_loss": ("loss", "Loss of the last step"),
    "mixdpo_accuracy": ("rewards/accuracies", "Preference accuracy of the last step"),
    "mixdpo_chosen_drift": ("logps/chosen_drift", "Change of the chosen answers' log-prob since the reference, nats"),
    "mixdpo_pairs_per_second": ("perf/pairs_per_second", "Pairs trained in a second"),
    "mixdpo_tokens_per_second": ("perf/tokens_per_second", "Tokens trained in a second"),
    "mixdpo_data_wait_fraction": ("perf/data_wait_fraction", "Share of a step that waited for its pairs"),
    "mixdpo_step_seconds": ("perf/seconds", "Time of the last step"),
    "mixdpo_window": ("step", "Number of the window of the last step, from 0"),
    "mixdpo_epoch": ("epoch", "Epochs that were trained"),
}
OF_EVALUATIONS = {
    "mixdpo_held_out_loss": ("eval_loss", "Loss of held-out pairs"),
    "mixdpo_held_out_accuracy": ("eval_rewards/accuracies", "Preference accuracy of held-out pairs"),
    "mixdpo_held_out_chosen_drift": ("eval_logps/chosen_drift", "Chosen drift of held-out pairs, nats"),
}
CHECKPOINTS: Final = ("mixdpo_checkpoint_seconds", "Time that training waited for the last checkpoint")
JUDGE_QUEUE: Final = ("mixdpo_judge_queue", "Questions that wait for their verdicts")
GAUGES: Final = (*OF_STEPS, *OF_EVALUATIONS, CHECKPOINTS[0], JUDGE_QUEUE[0])
_FOLDERS = {"runs": "run", "studies": "study", "comparisons": "study"}  # of output.storage_path


@dataclass(frozen=True)
class RunTags:
    """Whose numbers they are, as a person named it."""

    run: str = ""
    study: str = ""

    @classmethod
    def of(cls, folder: str) -> RunTags:
        """The name of a run, a study or a comparison; of what trains for another purpose, its folder's."""
        *_, kind, name = ["", *folder.rstrip("/").split("/")]
        return cls(**{_FOLDERS.get(kind, "run"): name})

    def with_trial(self, trial: object) -> dict[str, str]:
        return {"run": self.run, "study": self.study, "trial": "" if trial is None else str(trial)}


class TrainingGauges:
    def __init__(self, folder: str):
        self.tags = RunTags.of(folder)
        described = {name: text for name, (_, text) in {**OF_STEPS, **OF_EVALUATIONS}.items()}
        described[CHECKPOINTS[0]] = CHECKPOINTS[1]
        self.gauges = {name: Gauge(name, text, TAGS) for name, text in described.items()}

    def observe(self, event: Event) -> None:
        tags = self.tags.with_trial(event.job)
        match event:
            case StepTaken(metrics):
                self._set(OF_STEPS, metrics, tags)
            case Evaluated(metrics):
                self._set(OF_EVALUATIONS, metrics, tags)
            case CheckpointSaved(seconds):
                self.gauges[CHECKPOINTS[0]].set(seconds, tags)

    def _set(self, named: Mapping[str, tuple[str, str]], metrics: Mapping[str, Any], tags: dict[str, str]) -> None:
        """A step without a measure leaves what the last one that has it said."""
        for gauge, (metric, _) in named.items():
            self.gauges[gauge].set(metrics.get(metric), tags)


def judge_queue() -> Gauge:
    return Gauge(*JUDGE_QUEUE, ("model",))
