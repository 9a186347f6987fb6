"""The tokenizer and the causal language model that a recipe names, and the adapters put into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging

from mixdpo_ray.errors import ModelError
from mixdpo_ray.training.settings import LoraSettings, ModelSettings

SAMPLE = 1 << 20  # bytes read at each of a weight file's sampled places


def load_tokenizer(settings: ModelSettings, where: str = "") -> PreTrainedTokenizerBase:
    """`where`: the setting that names the model, unless it is model.path."""
    name = settings.tokenizer or settings.path
    refuse_missing_folder(where or ("model.tokenizer" if settings.tokenizer else "model.path"), name)
    revision = None if settings.tokenizer else settings.revision
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError) as error:
        which = f"{where} {name!r}: its tokenizer" if where else f"model.tokenizer {name!r}"
        raise ModelError(f"{which} cannot be loaded: {_first_line(error)}") from error
    if settings.chat_template is not None:
        tokenizer.chat_template = _template(settings.chat_template)
    return tokenizer


def refuse_missing_folder(setting: str, name: str) -> None:
    """What is plainly meant as a path is not asked for on the Hub, which takes a minute to say no without a network."""
    if name.startswith(("/", "./", "../")) and not Path(name).is_dir():
        raise ModelError(f"{setting} {name!r} is no folder; correct the path, or give a Hugging Face name")


def load_model(settings: ModelSettings, where: str = "model.path") -> PreTrainedModel:
    """Weights in `settings.dtype`, with adapters where lora is set, and no dropout: policy = reference at the start."""
    model: PreTrainedModel = load_pretrained(AutoModelForCausalLM, settings, where)
    _without_dropout(model)
    model.config.use_cache = False
    if settings.lora is not None:
        _add_adapters(model, settings.lora)
    return model


def load_pretrained(kind: Any, settings: ModelSettings, where: str, **options: Any) -> Any:
    """What an Auto class of transformers makes of the folder or name; `where` is the setting that gave it."""
    refuse_missing_folder(where, settings.path)
    try:
        with without_bars():
            return kind.from_pretrained(
                settings.path,
                revision=settings.revision,
                dtype=getattr(torch, settings.dtype),
                attn_implementation=settings.attn_implementation,
                trust_remote_code=settings.trust_remote_code,
                **options,
            )
    except (OSError, ValueError, ImportError) as error:  # ImportError: an attention that is not installed
        raise ModelError(f"{where} {settings.path!r} cannot be loaded: {_first_line(error)}") from error


@contextmanager
def without_bars() -> Iterator[None]:
    """One bar per worker for reading and writing weights is nothing that people can act on."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def with_absolute_paths(settings: ModelSettings) -> ModelSettings:
    """Local paths made absolute: workers on a cluster have working directories of their own."""
    paths = {name: getattr(settings, name) for name in ("path", "tokenizer", "chat_template", "reference")}
    found = {name: str(Path(path).absolute()) for name, path in paths.items() if path and _is_there(path)}
    return settings.model_copy(update=found)


def _is_there(path: str) -> bool:
    """A chat template may be the template itself, which is no path at all."""
    return "{" not in path and Path(path).exists()


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any token would do: a causal model never looks at what follows a sequence's end."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def model_digest(settings: ModelSettings) -> str:
    """Names the weights without reading all of them: the commit on the Hub, or sizes and samples of the files."""
    folder = Path(settings.path)
    if not folder.is_dir():
        config = AutoConfig.from_pretrained(
            settings.path, revision=settings.revision, trust_remote_code=settings.trust_remote_code
        )
        return str(config._commit_hash or settings.revision)
    sha = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix not in (".safetensors", ".bin") and file.name != "config.json":
            continue
        size = file.stat().st_size
        sha.update(f"{file.name} {size}\n".encode())
        with file.open("rb") as stream:
            for place in sorted({0, *(size * part // 16 for part in range(16)), max(0, size - SAMPLE)}):
                stream.seek(place)
                sha.update(stream.read(SAMPLE))
    return sha.hexdigest()[:16]


def tokenizer_digest(tokenizer: Any) -> str:
    """By content: the same tokenizer in another folder is the same."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = {
        "class": type(tokenizer).__name__,
        "template": tokenizer.chat_template,
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "vocabulary": backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items()),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _template(text: str) -> str:
    if "{" in text:
        return text
    file = Path(text)
    if not file.is_file():
        raise ModelError(f"model.chat_template {text!r} is neither a Jinja template nor a file: correct the path")
    return file.read_text()


def _without_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # attention reads its probability from a number, not from a module
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def _add_adapters(model: PreTrainedModel, lora: LoraSettings) -> None:
    """In place: names of the base weights gain `.base_layer`, and only the adapters are trained."""
    from peft import LoraConfig, inject_adapter_in_model

    targets: Any = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    try:
        inject_adapter_in_model(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets), model)
    except ValueError as error:
        raise ModelError(f"model.lora.target_modules {lora.target_modules!r}: {_first_line(error)}") from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "lora_" in name


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
