"""Serve the true quality of a playground's answers as a judge over HTTP, on this machine alone, with faults to try."""

from __future__ import annotations


def playground_judge() -> None:
    from mixdpo_ray.playground.judge_server import serve_truth

    serve_truth(__doc__)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_command

    run_command(playground_judge)
