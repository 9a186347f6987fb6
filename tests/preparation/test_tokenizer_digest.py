"""A tokenizer that was loaded once is known by its files; any change of them makes it another one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixdpo_ray.errors import ModelError, StorageError
from mixdpo_ray.preparation.tokenizer_digest import REMEMBERED, digest_of_tokenizer
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import load_tokenizer, tokenizer_digest
from tests.preparation.preparations import save_tokenizer

ASK = """
import sys
from mixdpo_ray.preparation.tokenizer_digest import digest_of_tokenizer
from mixdpo_ray.training.settings import ModelSettings
print(digest_of_tokenizer(ModelSettings(path=sys.argv[1]), sys.argv[2]), "transformers" in sys.modules)
"""


@pytest.fixture
def model(tmp_path: Path) -> ModelSettings:
    return ModelSettings(path=save_tokenizer(tmp_path / "model"))


def test_a_tokenizer_seen_before_is_not_loaded_again(model: ModelSettings, tmp_path: Path) -> None:
    first = digest_of_tokenizer(model, str(tmp_path))
    assert first == tokenizer_digest(load_tokenizer(model))
    ask = [sys.executable, "-c", ASK, model.path, str(tmp_path)]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split() == [first, "False"]


def test_a_changed_file_makes_another_tokenizer(model: ModelSettings, tmp_path: Path) -> None:
    before = digest_of_tokenizer(model, str(tmp_path))
    template = model.model_copy(update={"chat_template": "{{ messages[0].content }}"})
    assert digest_of_tokenizer(template, str(tmp_path)) == tokenizer_digest(load_tokenizer(template)) != before
    file = Path(model.path) / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 4000, "content": "<new>"})
    file.write_text(json.dumps(content))
    assert digest_of_tokenizer(model, str(tmp_path)) == tokenizer_digest(load_tokenizer(model)) != before


def test_weights_beside_a_tokenizer_and_its_place_say_nothing(model: ModelSettings, tmp_path: Path) -> None:
    digest_of_tokenizer(model, str(tmp_path))
    moved = shutil.copytree(model.path, tmp_path / "moved")
    (moved / "model.safetensors").write_bytes(b"weights")
    digest_of_tokenizer(model.model_copy(update={"path": str(moved)}), str(tmp_path))
    assert len(json.loads((tmp_path / REMEMBERED).read_text())) == 1


def test_what_is_missing_or_damaged_is_named(model: ModelSettings, tmp_path: Path) -> None:
    digest_of_tokenizer(model, str(tmp_path))
    with pytest.raises(ModelError, match="is no folder"):
        digest_of_tokenizer(ModelSettings(path="/no/such/folder"), str(tmp_path))
    with pytest.raises(ModelError, match="neither a Jinja template nor a file"):
        digest_of_tokenizer(model.model_copy(update={"chat_template": "absent.jinja"}), str(tmp_path))
    (tmp_path / REMEMBERED).write_text('{"half')
    with pytest.raises(StorageError, match=r"tokenizers.json is damaged: delete it"):
        digest_of_tokenizer(model, str(tmp_path))
