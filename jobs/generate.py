"""Answer prompts with a trained model; for a run of jobs/train.py, with the model it started from beside it."""

from __future__ import annotations

from mixdpo_ray.cluster.command import run_command


def generate() -> None:
    from mixdpo_ray.runs.answers import answer_prompts, answers_parser

    print(answer_prompts(answers_parser(__doc__).parse_args()).describe())


if __name__ == "__main__":
    run_command(generate)
