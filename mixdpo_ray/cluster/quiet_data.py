"""Ray Data for people who watch one bar: its own bars and reports stay in Ray's log files, our errors arrive whole."""

from __future__ import annotations

import logging

import ray

FILE_HANDLER = "SessionFileHandler"


def quiet_ray_data() -> None:
    """Silence Ray Data. Call it before a Dataset is made, which keeps the context that it was made in."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # otherwise the cause is lost between processes
    for handler in logging.getLogger("ray.data").handlers:
        if type(handler).__name__ != FILE_HANDLER:
            handler.setLevel(logging.CRITICAL)  # what fails is raised; the log files keep the rest
