"""The tokenizer that a recipe names."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.hub import brief_hub, why_not_loaded
from mixdpo_ray.training.model_files import refuse_missing_folder
from mixdpo_ray.training.settings import ModelSettings

if TYPE_CHECKING:
    from transformers.tokenization_utils_base import PreTrainedTokenizerBase


def load_tokenizer(settings: ModelSettings, where: str = "") -> PreTrainedTokenizerBase:
    """`where`: the setting that names the model, unless it is model.path. Its import takes 4 s of CPU time: torch."""
    from transformers import AutoTokenizer

    name = settings.tokenizer or settings.path
    refuse_missing_folder(where or ("model.tokenizer" if settings.tokenizer else "model.path"), name)
    revision = None if settings.tokenizer else settings.revision
    try:
        with brief_hub(name, revision):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=settings.trust_remote_code
            )
    except (OSError, ValueError) as error:
        setting = where or ("model.tokenizer" if settings.tokenizer else "model.path")
        which = f"{setting} {name!r}" if settings.tokenizer and not where else f"{setting} {name!r}: its tokenizer"
        raise ModelError(f"{which} cannot be loaded: {why_not_loaded(name, error)}") from error
    if settings.chat_template is not None:
        tokenizer.chat_template = chat_template(settings.chat_template)
    return tokenizer


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any token would do: a causal model never looks at what follows a sequence's end."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of a tokenizer by content: the same tokenizer in another folder is the same."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = {
        "class": type(tokenizer).__name__,
        "template": tokenizer.chat_template,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "vocabulary": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def chat_template(text: str) -> str:
    """The setting itself, or what the file that it names holds."""
    if "{" in text:
        return text
    file = Path(text)
    if not file.is_file():
        raise ModelError(f"model.chat_template {text!r} is neither a Jinja template nor a file: correct the path")
    return file.read_text()
