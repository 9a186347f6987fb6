"""A whole run with trackers: what they show is what metrics.jsonl holds, also through a kill, and none stops it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from mixdpo_ray.tracking.settings import MlflowSettings, TensorBoardSettings
from mixdpo_ray.tracking.tracked import Tracked
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Silent
from mixdpo_ray.training.loop import run_training
from mixdpo_ray.training.settings import CheckpointSettings
from mixdpo_ray.training.world import World
from tests.training.gang import Gang
from tests.training.test_loop import lines, train_until
from tests.training.tiny import make_job

NOBODY = "http://127.0.0.1:9"  # refuses at once, and is asked once more


class Warned(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_warning(self, text: str, *, once: bool = False) -> None:
        self.texts.append(text)


def warnings_of(world: World, job: TrainingJob) -> list[str]:
    listener = Warned()
    run_training(job, world, listener=listener)
    return listener.texts


def test_a_killed_run_is_one_curve_in_tensorboard_and_a_tracker_that_is_down_is_told(
    tiny: Path, two: Gang, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    trackers = {"tensorboard": TensorBoardSettings(), "mlflow": MlflowSettings(uri=NOBODY)}
    tracked = Tracked(trackers, "run", {"objective": {"name": "dpo"}})
    job = replace(make_job(tiny, run, checkpoints=CheckpointSettings(every_steps=2)), tracked=tracked)
    two(train_until, replace(job, tracked=Tracked({"tensorboard": TensorBoardSettings()}, "run", {})), 3)
    identifier = json.loads((run / "tracked.json").read_text())["id"]
    told, others = two(warnings_of, job)
    assert json.loads((run / "tracked.json").read_text())["id"] == identifier
    assert others == []
    assert told[0].startswith("output.trackers.mlflow: ")
    assert told[1] == f"output.trackers.mlflow lacks {len(lines(run))} lines of metrics: metrics.jsonl has them"
    assert "\n" not in told[0]
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    shown = {(event.step, round(event.value, 6)) for event in events.Scalars("loss")}
    assert shown == {(line["step"] + 1, round(line["loss"], 6)) for line in lines(run) if "kind" not in line}
    assert len(events.Scalars("loss")) == 5
    assert [event.step for event in events.Scalars("eval_loss")] == [0, 5]
    assert events.Tags()["images"] == ["curves"]
