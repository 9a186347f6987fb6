"""What the Hub reads of a model card, by its own classes: base model, licence, data sets, results on held-out pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yaml import YAMLError

from mixdpo_ray.pairs.settings import SourceSettings
from mixdpo_ray.pairs.source_files import is_data_set
from mixdpo_ray.training.hub import brief_hub, silence
from mixdpo_ray.training.job import TrainingJob
from mixdpo_ray.training.metric_names import of_set

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

LICENCE = ("license", "license_name", "license_link")
_ACCURACY = "eval_rewards/accuracies"


def metadata_of(job: TrainingJob, after: Mapping[str, Any], sets: list[str], adapter: bool) -> ModelCardData:
    """`after`: the evaluation of the trained model; `sets`: names of further held-out sets in it.

    `adapter`: whether it is of a folder that holds an adapter alone.
    """
    from huggingface_hub import ModelCardData

    tags = ["preference-tuning", "mixdpo", type(job.objective).__name__.lower(), *(["lora"] if job.model.lora else [])]
    sources = data_sets(job.card.get("recipe", {}).get("data", {}))
    results = [*_results(after, sets, sources)]
    return ModelCardData(
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=hub_name(job.model.path),
        datasets=sources or None,
        tags=tags,
        model_name=job.run.rstrip("/").rpartition("/")[2] if results else None,
        eval_results=results or None,
        **licence_of(job.model.path, job.model.revision),
    )


def hub_name(path: str) -> str | None:
    """The Hub's name of a model: its own, or the one that a local folder's config says it came from."""
    if not Path(path).is_dir():
        return path if is_hub_name(path) else None
    config = Path(path) / "config.json"
    written = json.loads(config.read_text()).get("_name_or_path") if config.exists() else None
    if not isinstance(written, str) or "/" not in written or Path(written).exists():
        return None
    return written if is_hub_name(written) else None


def is_hub_name(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def licence_of(path: str, revision: str | None) -> dict[str, Any]:
    """What the card of a base model says of its licence; nothing where it has none, or nobody can be asked."""
    from huggingface_hub import ModelCard, constants
    from huggingface_hub.errors import HfHubHTTPError

    card = Path(path) / "README.md"
    try:
        if Path(path).is_dir():
            data = ModelCard.load(card).data if card.exists() else None
        elif (name := hub_name(path)) is None or silence(constants.ENDPOINT):
            data = None
        else:
            with brief_hub(name):
                data = ModelCard.load(name).data
    except (OSError, ValueError, YAMLError, HfHubHTTPError):  # a card that cannot be had, or read
        return {}
    return {} if data is None else {key: value for key in LICENCE if (value := data.get(key)) is not None}


def data_sets(data: Mapping[str, Any]) -> list[str]:
    """Names on the Hub of the data sets that a recipe's pairs come from."""
    source = data.get("source") or {}
    known = SourceSettings.model_fields
    named = [
        SourceSettings.model_validate({key: value for key, value in one.items() if key in known})
        for one in (source.get("mix") or {"": source}).values()
        if one.get("path")
    ]
    found = (str(one.path) for one in named if is_data_set(one) and not Path(one.name).exists())
    return list(dict.fromkeys(name for name in found if is_hub_name(name)))


def _results(after: Mapping[str, Any], sets: list[str], sources: list[str]) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    for name in ("", *sets):
        if (accuracy := after.get(of_set(_ACCURACY, name))) is not None:
            yield EvalResult(
                task_type="text-generation",
                dataset_type=sources[0] if len(sources) == 1 and not name else "preference-pairs",
                dataset_name=f"held-out pairs{f' of {name}' if name else ''}",
                dataset_config=name or None,  # the Hub's library joins results that differ in names alone
                metric_type="accuracy",
                metric_name="preference accuracy",
                metric_value=round(float(accuracy), 4),
            )
