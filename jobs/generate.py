"""Answer prompts with a trained model; for a run of jobs/train.py, with the model it started from beside it."""

from __future__ import annotations


def generate() -> None:
    from mixdpo_ray.runs.answers import answer_prompts, answers_parser

    print(answer_prompts(answers_parser(__doc__).parse_args()).describe())


if __name__ == "__main__":
    from importlib.util import find_spec

    if not (find_spec("mixdpo_ray") and find_spec("ray")):
        raise SystemExit(
            "this Python has no mixdpo_ray, or no Ray: make install sets one up that has, .venv/bin/python"
        )
    from mixdpo_ray.cluster.command import run_command

    run_command(generate)
