"""The trackers that a job names, started by rank 0 with the lines that are kept of earlier processes."""

from __future__ import annotations

from functools import partial

from mixdpo_ray.tracking.trackers import Trackers, start_trackers
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.listener import Listener
from mixdpo_ray.training.metrics import MetricsLog
from mixdpo_ray.training.run_picture import curves_png


def trackers_of(job: TrainingJob, log: MetricsLog | None, start: int, listener: Listener) -> Trackers:
    """None on other ranks, which have no log."""
    if log is None or job.tracked is None or not job.tracked.trackers:
        return Trackers()
    warn = partial(listener.on_warning, once=True)
    draw = partial(curves_png, job.run)
    return start_trackers(job.tracked, job.run, job.fingerprint, start, log.before, warn, draw)
