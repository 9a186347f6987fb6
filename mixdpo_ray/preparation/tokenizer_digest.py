"""The digest of a recipe's tokenizer without loading it, where it was loaded before: transformers takes 2 s to import.

It is remembered by the content of the tokenizer's files, so that any change of them is noticed, and by the version of
the library that read them. A name on the Hub has no files to look at before it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from mixdpo_ray import storage
from mixdpo_ray.errors import StorageError
from mixdpo_ray.training.settings import ModelSettings
from mixdpo_ray.training.tokenizer import chat_template, load_tokenizer, tokenizer_digest

REMEMBERED = "tokenizers.json"
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".gguf", ".msgpack", ".onnx")


def digest_of_tokenizer(model: ModelSettings, storage_path: str) -> str:
    files = files_digest(model)
    if files is None:
        return tokenizer_digest(load_tokenizer(model))
    path = storage.join(storage_path, REMEMBERED)
    known = _read(path)
    if files not in known:
        known[files] = tokenizer_digest(load_tokenizer(model))
        storage.write_bytes(path, json.dumps(known, indent=2).encode())
    return known[files]


def files_digest(model: ModelSettings) -> str | None:
    """A digest of everything that a tokenizer is made of; None where that is not all in a folder here."""
    folder = Path(model.tokenizer or model.path)
    if not folder.is_dir():
        return None
    sha = hashlib.sha256(f"{version('transformers')} {version('tokenizers')} {model.trust_remote_code}".encode())
    if model.chat_template is not None:
        sha.update(chat_template(model.chat_template).encode())
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix not in WEIGHTS:
            sha.update(f"\n{file.name} {file.stat().st_size}\n".encode())
            sha.update(file.read_bytes())
    return sha.hexdigest()[:16]


def _read(path: str) -> dict[str, str]:
    if not storage.exists(path):
        return {}
    try:
        known = json.loads(storage.read_bytes(path))
    except ValueError:
        known = None
    if not isinstance(known, dict) or not all(isinstance(digest, str) for digest in known.values()):
        raise StorageError(f"{path} is damaged: delete it; it is made anew")
    return known
