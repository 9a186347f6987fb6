"""A Hub that does not answer costs a moment and one line, and what is cached is used all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from mixdpo_ray.errors import DataError, ModelError
from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.preparation.sources import find_source
from mixdpo_ray.training.hub import brief_hub, silence
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.mark.usefixtures("silent")
def test_a_model_by_name_is_refused_in_one_line_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load_tokenizer(ModelSettings(path="does/not-exist"))
    said = str(caught.value)
    assert said.startswith(
        "model.path 'does/not-exist': its tokenizer cannot be loaded: it is no folder here and not in"
    )
    assert f"{NOBODY} does not answer" in said
    assert "\n" not in said
    assert "Retrying" not in "".join(capfd.readouterr())
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("silent")
def test_a_data_set_by_name_is_refused_in_one_line_at_once() -> None:
    with pytest.raises(DataError, match=r"as a Hugging Face data set: it is no folder here .* does not answer"):
        find_source(SourceSettings(path="does/not-exist"))


@pytest.mark.usefixtures("silent")
def test_only_what_is_loaded_meanwhile_is_taken_from_the_cache(tmp_path: Path) -> None:
    with brief_hub("owner/name"):
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    with brief_hub(str(tmp_path)):  # a folder needs no Hub
        assert not constants.HF_HUB_OFFLINE
    assert silence(NOBODY)
