"""A model that has no vector for some of its tokenizer's tokens is refused before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.vocabulary import check_vocabulary, vocabulary_size


def model(folder: Path, config: object) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_a_model_with_fewer_tokens_than_its_tokenizer_is_refused(tmp_path: Path) -> None:
    settings = ModelSettings(path=model(tmp_path / "small", {"vocab_size": 300}), tokenizer="other")
    check_vocabulary(settings, 299)
    with pytest.raises(
        ModelError, match=r"model\.path .*small knows 300 tokens, and tokenizer other writes ids up to 599"
    ):
        check_vocabulary(settings, 599)


def test_a_reference_with_fewer_tokens_is_refused_too(tmp_path: Path) -> None:
    large, small = model(tmp_path / "large", {"vocab_size": 600}), model(tmp_path / "small", {"vocab_size": 300})
    with pytest.raises(ModelError, match=r"model\.reference .*small knows 300 tokens"):
        check_vocabulary(ModelSettings(path=large, reference=small), 599)


def test_the_size_is_that_of_the_language_model_inside_and_unknown_where_no_configuration_is(tmp_path: Path) -> None:
    assert vocabulary_size(model(tmp_path / "inner", {"text_config": {"vocab_size": 70}})) == 70
    assert vocabulary_size(model(tmp_path / "silent", {})) is None
    assert vocabulary_size("owner/a-model-that-is-not-cached") is None
    assert vocabulary_size("no/name/at all") is None
