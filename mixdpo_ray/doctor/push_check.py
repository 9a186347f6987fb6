"""Check of where the trained model is pushed to."""

from __future__ import annotations

from huggingface_hub import constants

from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import Caution, CheckFailed
from mixdpo_ray.runs.push import hub_token, writer_of
from mixdpo_ray.training.hub import silence


def push(examination: Examination) -> str | Caution:
    settings = examination.recipe.output.push_to_hub
    if settings is None:
        return "nothing is pushed"
    hub_token(settings)
    if constants.HF_HUB_OFFLINE:
        raise CheckFailed(f"HF_HUB_OFFLINE is set, and output.push_to_hub names {settings.repo}: take one of them back")
    if reason := silence(constants.ENDPOINT):
        return Caution(
            f"{constants.ENDPOINT} does not answer ({reason}): a run is trained all the same, and its command repeated "
            f"pushes to {settings.repo} once it does"
        )
    private = ", private where it is new" if settings.private else ", public where it is new"
    return f"{writer_of(settings)}{private}"
