"""What was made goes to the Hugging Face Hub: once, and by the same command again where it failed.

The library itself sends large folders in several commits and leaves out what has arrived before, so a push that was cut
off costs no second upload of its weights.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixdpo_ray import storage
from mixdpo_ray.bar import say, waiting
from mixdpo_ray.cluster.run_record import RunRecord
from mixdpo_ray.errors import EndpointError
from mixdpo_ray.judging.key import EndpointKey
from mixdpo_ray.recipe.push import PushSettings
from mixdpo_ray.recipe.recipe import Recipe
from mixdpo_ray.runs.summary import RunReport, exported_as
from mixdpo_ray.training.card_metadata import hub_name
from mixdpo_ray.training.model_files import ADAPTER_CONFIG
from mixdpo_ray.wording import first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TRIES = 8
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds; each is twice the one before
_BUSY = 429


def hub_token(settings: PushSettings) -> EndpointKey:
    """The token by the names in the recipe, or else what the library finds by itself."""
    key = EndpointKey.read(settings)
    if key.token is not None:
        return key
    from huggingface_hub import get_token

    if (found := get_token()) is None:
        raise EndpointError(
            "output.push_to_hub: there is no token: set HF_TOKEN, run `hf auth login`, or give key_variable or key_file"
        )
    return EndpointKey(found)


def push_model(recipe: Recipe, report: RunReport) -> RunReport:
    """The report with where the run's model was pushed to, now or by an earlier command."""
    settings = recipe.output.push_to_hub
    if settings is None:
        return report
    record, steps = RunRecord(report.folder), report.summary["steps"]
    message = f"{recipe.output.name}: {steps} steps of MixDPO"
    with record.locked():
        pushed = push_once(record, settings, exported_as(report.summary), message, {"steps": steps})
    return replace(report, pushed=pushed)


def push_once(
    record: RunRecord, settings: PushSettings, name: str, message: str, about: Mapping[str, Any], kind: str = "model"
) -> str:
    """The address of a folder inside the record's, pushed unless the record says that it was.

    `about`: what its content is known by. `kind`: model or dataset.
    """
    from huggingface_hub import constants

    goal = {"endpoint": constants.ENDPOINT, "repo": settings.repo, "revision": settings.revision, "folder": name}
    wanted, before = {**goal, **about}, record.pushed() or {}
    if {one: before.get(one) for one in wanted} != wanted:
        before = {**wanted, **_push_folder(settings, storage.join(record.folder, name), message, kind)}
        record.write_pushed(before)
    return str(before["url"])


def _push_folder(settings: PushSettings, folder: str, message: str, kind: str) -> dict[str, str]:
    from huggingface_hub import HfApi, constants

    key = hub_token(settings)
    api = HfApi(endpoint=constants.ENDPOINT, token=key.token)
    with _at_hand(folder) as here, waiting(f"pushing {folder} to {settings.repo}"):
        try:
            return _patiently(lambda: _upload(api, settings, here, message, kind))
        except (OSError, ValueError, RuntimeError, *_http_errors()) as error:
            raise EndpointError(
                f"output.push_to_hub {settings.repo}: {key.hide(first_line(error))}; {folder} is finished and stays, "
                "and the same command pushes again"
            ) from None


def _upload(api: HfApi, settings: PushSettings, folder: Path, message: str, kind: str) -> dict[str, str]:
    repo = api.create_repo(settings.repo, private=settings.private, repo_type=kind, exist_ok=True)
    if settings.revision is not None:
        api.create_branch(repo.repo_id, branch=settings.revision, repo_type=kind, exist_ok=True)
    commit = api.upload_folder(
        repo_id=repo.repo_id,
        folder_path=folder,
        repo_type=kind,
        revision=settings.revision,
        commit_message=message,
    )
    return {"url": str(repo), "commit": str(commit.oid)}


def _patiently(upload: Callable[[], dict[str, str]]) -> dict[str, str]:
    """Again after a while where the Hub is busy, fails or cannot be reached; everything else is for people."""
    wait = FIRST_WAIT
    for left in reversed(range(TRIES)):
        try:
            return upload()
        except (ConnectionError, TimeoutError, RuntimeError, *_http_errors()) as error:
            if not left or not _may_pass(error):
                raise
            say(f"push: {first_line(error)}; again in {wait:g} s")
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT)
    raise AssertionError("the last try returns or raises")


def _may_pass(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == _BUSY or error.response.status_code >= 500
    return not isinstance(error, OfflineModeIsEnabled)


def _http_errors() -> tuple[Any, ...]:
    """The root of what the library's HTTP client raises, whichever that is."""
    from huggingface_hub.errors import HfHubHTTPError

    return (HfHubHTTPError.__bases__[0],)


@contextmanager
def _at_hand(folder: str) -> Iterator[Path]:
    """The folder on this machine; of an adapter a copy that names its base as the Hub does, and no local path."""
    adapter = storage.exists(storage.join(folder, ADAPTER_CONFIG))
    if storage.is_local(folder) and not adapter:
        yield storage.local(folder)
        return
    with tempfile.TemporaryDirectory(prefix="mixdpo-push-") as temporary:
        copy = Path(temporary) / "folder"
        storage.copy(folder, str(copy))
        if adapter:
            _name_base(copy / ADAPTER_CONFIG)
        yield copy


def _name_base(file: Path) -> None:
    config = json.loads(file.read_text("utf-8"))
    base = str(config.get("base_model_name_or_path"))
    config["base_model_name_or_path"] = hub_name(base) or Path(base).name
    file.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def writer_of(settings: PushSettings) -> str:
    """Who pushes there. Raise one line where the Hub knows that it would not be allowed."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    key = hub_token(settings)
    api = HfApi(endpoint=constants.ENDPOINT, token=key.token)
    where = f"output.push_to_hub {settings.repo}"
    try:
        known = api.whoami()
        user, orgs = known["name"], [one["name"] for one in known.get("orgs", [])]
        role = known.get("auth", {}).get("accessToken", {}).get("role")
        if role == "read":
            raise EndpointError(f"{where}: the token of {user} may only read: make one that may write")
        owner = settings.repo.rpartition("/")[0] or user
        if owner not in (user, *orgs):
            others = f" and of {', '.join(orgs)}" if orgs else ""
            raise EndpointError(f"{where}: the token is {user}'s{others}, and {owner} is another: correct the name")
        try:
            api.auth_check(settings.repo if "/" in settings.repo else f"{user}/{settings.repo}", write=True)
        except RepositoryNotFoundError:
            return f"{settings.repo} is made by {user}"
    except (OSError, *_http_errors()) as error:
        raise EndpointError(f"{where}: {key.hide(first_line(error))}; correct the token or the name") from None
    return f"{settings.repo} is written by {user}"
