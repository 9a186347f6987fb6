"""Whose answers are sampled: the recipe's model, a run's or its checkpoint's, or one by its folder or Hub name."""

from __future__ import annotations

import hashlib
import tempfile

from mixdpo_ray import storage
from mixdpo_ray.bar import say
from mixdpo_ray.cluster.folder_lock import atomic_folder, exclusive
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.errors import ModelError, StorageError
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.training.checkpoints import MARK, STEP
from mixdpo_ray.training.model_files import model_digest, refuse_missing_folder, with_absolute_paths
from mixdpo_ray.training.settings import ModelSettings

SETTING = "answers.sample.model"
SETTINGS_FILE = "config.json"  # of every model


def sampled_model(recipe: Recipe) -> ModelSettings:
    """The model without adapters, which a run's export has merged."""
    asked = recipe.answers.sample
    if asked.model is None:
        refuse_missing_folder("model.path", recipe.model.path)
        return with_absolute_paths(recipe.model.model_copy(update={"lora": None, "reference": None}))
    return named_model(recipe.model, asked.model, asked.revision, SETTING)


def named_model(own: ModelSettings, name: str, revision: str | None, setting: str) -> ModelSettings:
    """A run's model, a checkpoint's, or one by its folder or Hub name. `setting`: that has named it, for errors."""
    trained = model_of_run(name) or _model_of_checkpoint(name)
    return with_absolute_paths(trained or _elsewhere(own, name, revision, setting))


def model_of_run(folder: str) -> ModelSettings | None:
    """What a run of jobs/train.py left; None where the folder is that of no run."""
    model = model_before_run(folder)
    own = {"path": RunRecord(folder).model, "tokenizer": None, "revision": None, "lora": None}  # the tokenizer too
    return None if model is None else model.model_copy(update=own)


def model_before_run(folder: str) -> ModelSettings | None:
    """The model that a finished run began with, and the adapter if any; None where the folder is that of no run."""
    record = RunRecord(folder)
    recorded = record.recorded()
    if recorded is None:
        return None
    if not storage.exists(storage.join(record.model, SETTINGS_FILE)):
        if storage.exists(record.adapter):
            raise StorageError(
                f"{folder} has an adapter and no whole model (model.lora.export adapter): repeat jobs/train.py under "
                "another output.name with model.lora.export=both, or name its last checkpoint instead"
            )
        raise StorageError(f"{folder} has no model yet: the run has not finished; repeat jobs/train.py to continue it")
    # of the recipe the model alone: other sections may have had settings that no longer exist
    model = ModelSettings.model_validate(recorded.recipe["model"])
    lora = model.lora if model.lora is not None and model.lora.adapter is not None else None
    return model.model_copy(update={"lora": lora, "reference": None})


def _model_of_checkpoint(path: str) -> ModelSettings | None:
    """The model of a run's step, which is put together beside its checkpoints the first time; None where it is none."""
    checkpoints, _, step = path.rstrip("/").rpartition("/")
    if not STEP.fullmatch(step) or not storage.exists(storage.join(path, MARK)):
        return None
    record = RunRecord(checkpoints.rpartition("/")[0] or ".")
    recorded = record.recorded()
    if recorded is None:
        raise StorageError(f"{record.recipe_file} does not exist: a checkpoint is read with the recipe of its run")
    model = ModelSettings.model_validate(recorded.recipe["model"])
    target = storage.join(storage.absolute(record.exported), step)
    with exclusive(target):
        if not storage.exists(storage.join(target, SETTINGS_FILE)):
            say(f"sample: putting the model of {path} together")
            _export(path, with_absolute_paths(model), target)
    own = {"path": target, "tokenizer": None, "revision": None, "lora": None, "reference": None}
    return model.model_copy(update=own)


def _export(path: str, model: ModelSettings, target: str) -> None:
    from mixdpo_ray.training.checkpoint_export import export_checkpoint

    with tempfile.TemporaryDirectory(prefix="mixdpo_ray-") as temporary, atomic_folder(target) as unfinished:
        folder = storage.local(unfinished if storage.is_local(target) else temporary)
        export_checkpoint(path, model, folder)
        if not storage.is_local(target):
            copy_settings_last(str(folder), target)


def copy_settings_last(folder: str, target: str) -> None:
    """Copy a model so that one whose copying was killed has no config.json, by which a whole one is known."""
    for name in sorted(storage.names(folder), key=lambda name: name == SETTINGS_FILE):
        storage.copy(storage.join(folder, name), storage.join(target, name))


def _elsewhere(own: ModelSettings, name: str, revision: str | None, setting: str) -> ModelSettings:
    """Another model, in the number format of the recipe's own."""
    refuse_missing_folder(setting, name)
    if storage.local(name).is_dir() and not storage.local(name).joinpath(SETTINGS_FILE).is_file():
        raise ModelError(f"{setting} {name!r} is neither a run nor a model: it has neither a recipe nor a config.json")
    alike = {"dtype", "attn_implementation", "trust_remote_code"}
    return ModelSettings.model_validate({"path": name, "revision": revision, **own.model_dump(include=alike)})


def weights_identity(model: ModelSettings) -> str:
    """A name for the weights, wherever they lie; in an object store by names, sizes and times of the files."""
    if storage.is_local(model.path):
        return model_digest(model)
    import pyarrow.fs as pafs

    filesystem, inner = storage.open_filesystem(model.path)
    with storage.explained(model.path):
        files = filesystem.get_file_info(pafs.FileSelector(inner))
    states = sorted(f"{file.base_name} {file.size} {file.mtime_ns}" for file in files)
    return hashlib.sha256("\n".join(states).encode()).hexdigest()[:16]
