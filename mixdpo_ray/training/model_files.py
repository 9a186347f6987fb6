"""Model files: where they are, and a name for what they hold."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, TypeVar

from mixdpo_ray import storage
from mixdpo_ray.errors import ModelError
from mixdpo_ray.settings import Settings
from mixdpo_ray.training.hub import brief_hub, why_not_loaded
from mixdpo_ray.training.settings import ModelSettings

Located = TypeVar("Located", bound=Settings)
PATHS = ("path", "tokenizer", "chat_template", "reference", "model", "against")  # or names on the Hub
ADAPTER_CONFIG = "adapter_config.json"
SAMPLE = 1 << 20  # bytes read at each of a weight file's samples


def refuse_missing_folder(setting: str, name: str) -> None:
    """What is plainly meant as a path is not asked for on the Hub, where names are `name` or `owner/name`."""
    path = Path(name)
    if not path.is_dir() and (path.exists() or not storage.may_be_on_hub(name)):
        raise ModelError(
            f"{setting} {name!r} is no folder; correct the path{storage.from_here(name)}, or give a Hugging Face name"
        )


def with_absolute_paths(settings: Located) -> Located:
    """The settings of a model, or of a metric that names models, with absolute paths where these exist here."""
    paths = {name: getattr(settings, name, None) for name in PATHS}
    found: dict[str, Any] = {name: storage.absolute(path) for name, path in paths.items() if path and _is_there(path)}
    if (lora := getattr(settings, "lora", None)) is not None and lora.adapter and _is_there(lora.adapter):
        found["lora"] = lora.model_copy(update={"adapter": storage.absolute(lora.adapter)})
    return settings.model_copy(update=found)


def _is_there(path: str) -> bool:
    """A chat template may be the template itself, which is no path at all."""
    return "{" not in path and storage.local(path).exists()


def adapter_folder(name: str) -> Path:
    """The folder of an adapter, fetched from the Hub where the name is none."""
    refuse_missing_folder("model.lora.adapter", name)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[ADAPTER_CONFIG, "adapter_model.*"]))
    except Exception as error:  # the library raises a dozen kinds
        raise ModelError(f"model.lora.adapter {name!r} cannot be loaded: {why_not_loaded(name, error)}") from error


def model_digest(settings: ModelSettings) -> str:
    """Names the weights without reading all of them: the commit on the Hub, or sizes and samples of the files."""
    adapter = settings.lora.adapter if settings.lora is not None else None
    if adapter is None:
        return _base_digest(settings)
    return f"{_base_digest(settings)}-{weights_digest(adapter_folder(adapter), ADAPTER_CONFIG)}"


def _base_digest(settings: ModelSettings) -> str:
    folder = Path(settings.path)
    if not folder.is_dir():
        from transformers import AutoConfig

        with brief_hub(settings.path):
            config = AutoConfig.from_pretrained(
                settings.path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
            )
        return str(config._commit_hash or settings.revision)
    return weights_digest(folder, "config.json")


def weights_digest(folder: Path, config: str) -> str:
    """Names the weights and the configuration in a folder."""
    sha = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in (".safetensors", ".bin") and file.name != config:
            continue
        size = file.stat().st_size
        sha.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for offset in sorted({0, *(size * part // 16 for part in range(16)), max(0, size - SAMPLE)}):
                stream.seek(offset)
                sha.update(stream.read(SAMPLE))
    return sha.hexdigest()[:16]
