"""The table of checks. To add one: a function from Patient to what was found, and its line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mixdpo_ray.doctor import cluster_checks, input_checks, push_check, scoring_check, size_checks, timing_check
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import Caution, Finding, Unchecked
from mixdpo_ray.errors import MixDPOError


@dataclass(frozen=True)
class Check:
    look: Callable[[Examination], str | Caution]
    needs: tuple[str, ...] = ()  # where one of these is not green, this one would only fail again


CHECKS: Mapping[str, Check] = {
    "cluster": Check(cluster_checks.cluster),
    "storage": Check(cluster_checks.storage, ("cluster",)),
    "versions": Check(cluster_checks.versions, ("cluster",)),
    "workers": Check(cluster_checks.workers, ("cluster",)),
    "trackers": Check(cluster_checks.trackers, ("cluster",)),
    "hub": Check(input_checks.hub),
    "push": Check(push_check.push),
    "model": Check(input_checks.model, ("hub",)),
    "tokenizer": Check(input_checks.tokenizer, ("hub",)),
    "data": Check(input_checks.data, ("hub",)),
    "pairs": Check(input_checks.pairs, ("tokenizer", "data")),
    "files": Check(cluster_checks.files, ("cluster",)),
    "batch": Check(size_checks.batch),
    "steps": Check(size_checks.steps, ("tokenizer", "data")),
    "rate": Check(size_checks.peak_rate),
    "warm-up": Check(size_checks.warm_up, ("steps",)),
    "memory": Check(size_checks.memory, ("cluster",)),
    "scoring": Check(scoring_check.scoring, ("cluster", "model")),
    "disk": Check(size_checks.disk, ("storage",)),
    "upload": Check(cluster_checks.upload),
    "time": Check(
        timing_check.duration, ("storage", "workers", "model", "tokenizer", "data", "steps", "warm-up", "memory")
    ),
}


def examine(examination: Examination, checks: Mapping[str, Check] = CHECKS) -> Iterator[Finding]:
    """One after the other, as soon as each is known."""
    sound: set[str] = set()
    for name, check in checks.items():
        finding = _look(name, check, examination, [needed for needed in check.needs if needed not in sound])
        if finding.state in ("green", "yellow"):
            sound.add(name)
        yield finding


def _look(name: str, check: Check, examination: Examination, lacking: list[str]) -> Finding:
    if lacking:
        return Finding(name, "unchecked", f"not checked, because {lacking[0]} is not sound")
    try:
        found = check.look(examination)
    except Unchecked as reason:
        return Finding(name, "unchecked", f"not checked: {reason}")
    except MixDPOError as error:
        return Finding(name, "red", " ".join(str(error).split()))
    return Finding(name, "yellow", found.text) if isinstance(found, Caution) else Finding(name, "green", found)
