"""A whole run in a toy whose answers have a known quality: base model, rated pairs, MixDPO, judgement.

Everything after the pairs goes through the functions and files of a real run. A second run finds what the first one
made; other settings make another playground.
"""

from __future__ import annotations

RECIPE = __file__.replace("playground.py", "recipes/playground.yaml")


def playground() -> None:
    from mixdpo_ray.runs.play import play, play_parser

    arguments = vars(play_parser(__doc__, RECIPE).parse_args())
    play(RECIPE, arguments.pop("overrides"), arguments)


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_command

    run_command(playground)
