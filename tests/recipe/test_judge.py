"""The judge section refuses what could not work or would show a key."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from mixdpo_ray.recipe.judge import JudgeSettings, PaidEndpointSettings


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "https://me:secret@host/v1"}, "give an address such as http://HOST:8000/v1, and keys by name"),
        ({"url": "https://host/v1?key=secret"}, "and keys by name"),
        ({"key_variable": "A", "key_file": "b"}, "key_variable and key_file both name a key"),
        ({"budget": {"price": 5}}, "budget.price needs the prices of a million tokens"),
        ({"parameters": {"n": 3}}, "n cannot be set here"),
        ({"parameters": {"max_tokens": None}}, "no answer has a longest price: give max_completion_tokens"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        PaidEndpointSettings.model_validate({"model": "judge", **settings})
    assert told in str(error.value)


def test_a_judge_is_named() -> None:
    with pytest.raises(ValidationError, match=r"(?s)model\n +Field required"):
        PaidEndpointSettings.model_validate({})


def test_a_reasoning_judge_gets_a_limit_of_its_own() -> None:
    settings = PaidEndpointSettings(
        url="https://api.example.org/v1/",
        model="reasoner",
        parameters={"max_tokens": None, "temperature": None, "max_completion_tokens": 4096},
    )
    assert settings.url == "https://api.example.org/v1"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "engine http needs a server: give http"),
        ({"engine": "hf"}, "engine hf needs a model"),
    ],
)
def test_a_judge_without_its_model_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        JudgeSettings.model_validate(settings)
