"""What Ray Train is handed. Its controller imports this file to pass it on, and would import all that it needs."""

from __future__ import annotations


def work(config: dict[str, bytes]) -> None:
    """The group stays bytes until a worker opens it: in the controller that would cost seconds of imports."""
    import pickle

    from mixdpo_ray.cluster.worker import train_what_is_queued

    train_what_is_queued(pickle.loads(config["group"]))
