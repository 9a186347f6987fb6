"""Checks of what goes in: the model without its weights being read, the tokenizer, and the first rows of the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from mixdpo_ray import storage
from mixdpo_ray.doctor.examination import Examination, is_on_hub
from mixdpo_ray.doctor.finding import Caution, CheckFailed, counted
from mixdpo_ray.pairs.blamed_setting import blamed_on
from mixdpo_ray.pairs.causes import causes_text
from mixdpo_ray.pairs.columns import find_format
from mixdpo_ray.pairs.convert import Converter
from mixdpo_ray.pairs.file_kinds import file_kind, is_plain_lines
from mixdpo_ray.pairs.report import IGNORED
from mixdpo_ray.pairs.settings import HELD_OUT_SETS, SFT_SOURCE, DataSettings, mixed_name
from mixdpo_ray.pairs.sft_rows import format_of_source
from mixdpo_ray.pairs.source_files import is_data_set
from mixdpo_ray.pairs.tokens import TOOLS_IGNORED, PairTokenizer
from mixdpo_ray.pairs.unknown_tokens import unknown_tokens
from mixdpo_ray.preparation.sources import Source
from mixdpo_ray.training.hub import silence
from mixdpo_ray.training.positions import too_long_for_model
from mixdpo_ray.training.vocabulary import check_vocabulary, vocabulary_size
from mixdpo_ray.wording import first_line, size_text

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
HUB_SECONDS = 10
HTTP_ERROR: Any = HfHubHTTPError.__bases__[0]  # the root of what the Hub's HTTP library raises, whichever that is


def hub(examination: Examination) -> str | Caution:
    """Asked once and briefly: each library would try six times before it says that nobody answers."""
    model, data = examination.recipe.model, examination.recipe.data
    names = [name for name in (model.path, model.tokenizer, model.reference) if name and is_on_hub(name)]
    sources = [one.source for one in data.by_source.values() if is_data_set(one.source)]
    names += [path for source in sources if isinstance(path := source.path, str) and is_on_hub(path)]
    if not names:
        return "nothing is taken from it"
    if constants.HF_HUB_OFFLINE:
        return f"not asked, since HF_HUB_OFFLINE is set; {', '.join(names)} must be cached on every node"
    if reason := silence(constants.ENDPOINT):
        absent = [name for name in names if vocabulary_size(name) is None]
        if not absent:
            where = "taken from the cache, which every node must have"
            return Caution(f"{constants.ENDPOINT} does not answer ({reason}): {', '.join(names)} are {where}")
        raise CheckFailed(
            f"{constants.ENDPOINT} does not answer ({reason}), and {absent[0]} is taken from there: mend the network, "
            "give folders instead, or set HF_HUB_OFFLINE=1 where everything is cached"
        )
    return f"{constants.ENDPOINT} answers, for {', '.join(dict.fromkeys(names))}"


def model(examination: Examination) -> str | Caution:
    settings, pairs = examination.recipe.model, examination.recipe.data
    found = weights("model.path", settings.path, settings.revision)
    if settings.reference:
        weights("model.reference", settings.reference, None)
    shape = examination.shape
    adapters = f", {shape.trained / 1e6:,.1f} million of them trained" if settings.lora else ""
    size = (
        f"{shape.parameters / 1e9:.2f} billion" if shape.parameters > 1e9 else f"{shape.parameters / 1e6:.1f} million"
    )
    text = f"{settings.path}: {shape.kind}, {size} weights in {settings.dtype}{adapters}; {found}"
    if doubt := too_long_for_model(settings, pairs.max_length, pairs.max_prompt_length):
        if doubt.ends_training:
            raise CheckFailed(doubt.text)
        return Caution(f"{text}; {doubt.text}")
    return text


def weights(setting: str, name: str, revision: str | None) -> str:
    """Say where a model's weights are, without reading them."""
    folder = Path(name)
    if folder.is_dir():
        return _local_weights(setting, folder)
    if not is_on_hub(name):
        raise CheckFailed(f"{setting} {name!r} is no folder: correct the path, or give a Hugging Face name")
    try:
        if constants.HF_HUB_OFFLINE or silence(constants.ENDPOINT):
            return _local_weights(setting, Path(snapshot_download(name, revision=revision, local_files_only=True)))
        info = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
    except (OSError, ValueError, HTTP_ERROR) as error:
        raise CheckFailed(
            f"{setting} {name!r} is no folder here, and the Hugging Face Hub says: {first_line(error)}; correct the "
            "name or model.revision, log in with HF_TOKEN, or give a folder"
        ) from error
    files = [file.rfilename for file in info.siblings or ()]
    if not any(file.endswith((".safetensors", ".bin")) for file in files):
        raise CheckFailed(f"{setting} {name!r} has no weights on the Hugging Face Hub: choose a model that has")
    return f"on the Hub at {str(info.sha)[:8]}"


def _local_weights(setting: str, folder: Path) -> str:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return f"{size_text((folder / name).stat().st_size)} in {name}"
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            absent = [part for part in parts if not (folder / part).is_file()]
            if absent:
                raise CheckFailed(
                    f"{setting} {folder} lacks {_few(absent)} of {len(parts)} weight files: copy the folder again"
                )
            return f"{size_text(sum((folder / part).stat().st_size for part in parts))} in {len(parts)} files"
    raise CheckFailed(
        f"{setting} {folder} has neither {' nor '.join(WEIGHT_FILES)}: give the folder that holds the weights"
    )


def tokenizer(examination: Examination) -> str:
    # refuses what has no template that works, or no end token
    largest = PairTokenizer(examination.tokenizer, examination.recipe.data).largest_id
    check_vocabulary(examination.recipe.model, largest)
    kind = type(examination.tokenizer).__name__
    own = "model.chat_template" if examination.recipe.model.chat_template else "its own chat template"
    return f"{kind}, {len(examination.tokenizer):,} tokens, {own}"


def data(examination: Examination) -> str:
    recipe = examination.recipe
    found = []
    for (setting, settings), source in zip(recipe.data.by_source.items(), examination.sources, strict=True):
        with blamed_on(setting):
            name = format_of_source(setting, settings, source.columns(settings.max_row_bytes))
        what = "mapped data set" if source.mapped is not None else counted(len(source.files), "file")
        size = "" if source.mapped is not None or source.bytes == float("inf") else f", {size_text(source.bytes)}"
        role = "" if setting in recipe.data.trained else _role(setting)
        found.append(f"{role}{source.name}: {what}{size}, format {name}")
    return "; ".join(found)


def _role(setting: str) -> str:
    if setting == SFT_SOURCE:
        return "SFT: "
    return f"held out{' as ' + setting.rpartition('.')[2] if setting.startswith(HELD_OUT_SETS) else ''}: "


def pairs(examination: Examination) -> str | Caution:
    """The first rows of what is trained on, all the way to tokens, by the code that prepares all of them."""
    trained = examination.recipe.data.trained
    sources = zip(trained.items(), examination.sources, strict=False)  # held-out sources stand behind them
    found = [(mixed_name(setting), _first_pairs(examination, setting, data, one)) for (setting, data), one in sources]
    texts = [(name, said.text if isinstance(said, Caution) else said) for name, said in found]
    text = "; ".join(f"{name}: {said}" if name else said for name, said in texts)
    return Caution(text) if any(isinstance(said, Caution) for _, said in found) else text


def _first_pairs(examination: Examination, setting: str, data: DataSettings, source: Source) -> str | Caution:
    rows = examination.first_rows(source)
    with blamed_on(setting):
        format_name = find_format(data, source.columns(data.max_row_bytes))
    converted = Converter(data, format_name, examination.tokenizer, mixed_name(setting)).convert(rows)
    values, refused = {(row.file, row.row): row.value for row in rows}, converted.refused
    reasons = causes_text(refused, lambda one: values.get((one.file, one.row)), data.source.columns)
    kept, counted_in, limit = len(converted.kept), converted.rows_in, data.source.max_quarantined_fraction
    if not kept:
        raise CheckFailed(f"none of the first {counted_in} pairs is kept: {reasons}")
    lengths = [len(ids) for name in ("chosen_ids", "rejected_ids") for ids in converted.kept[name].to_pylist()]
    text = f"{kept} of the first {counted_in} are kept, answers of {min(lengths)} to {max(lengths)} tokens"
    if len(refused) / counted_in > limit:
        return Caution(
            f"{text}; refused: {reasons}. If all are like these, more than {setting}.max_quarantined_fraction "
            f"{limit:g} are refused and the job stops"
        )
    if ignored := converted.notes[TOOLS_IGNORED]:
        return Caution(f"{text}; {IGNORED.format(ignored).removeprefix('warning: ')}")
    if unknown := unknown_tokens(converted.kept, examination.tokenizer):
        return Caution(f"{text}; {unknown}")
    return f"{text}{f'; refused: {reasons}' if reasons else ''}"


def row_count(source: Source, first_rows_bytes: float) -> int | None:
    """Exact for parquet and mapped data sets, by size for lines; none where only reading would tell."""
    if source.mapped is not None:
        return len(source.mapped)
    kinds = {file_kind(file) for file in source.files}
    if kinds == {"parquet"}:
        return sum(_parquet_rows(file) for file in source.files)
    plain = all(map(is_plain_lines, source.files))
    return round(source.bytes / first_rows_bytes) if plain and source.bytes < float("inf") else None


def _parquet_rows(file: str) -> int:
    filesystem, inner = storage.open_filesystem(file)
    with storage.explained(file), filesystem.open_input_file(inner) as stream:
        return int(pq.read_metadata(stream).num_rows)


def _few(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
