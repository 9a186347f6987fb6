"""The table of checks. To add one: a function from Patient to what was found, and its line here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mixdpo_ray.cluster.doctor import arithmetic, inputs, surroundings, trial
from mixdpo_ray.cluster.doctor.finding import Caution, Finding, Unchecked
from mixdpo_ray.cluster.doctor.patient import Patient
from mixdpo_ray.errors import MixDPOError


@dataclass(frozen=True)
class Check:
    look: Callable[[Patient], str | Caution]
    needs: tuple[str, ...] = ()  # where one of these is not green, this one would only fail again


CHECKS: Mapping[str, Check] = {
    "cluster": Check(surroundings.cluster),
    "storage": Check(surroundings.storage, ("cluster",)),
    "versions": Check(surroundings.versions, ("cluster",)),
    "workers": Check(surroundings.workers, ("cluster",)),
    "hub": Check(inputs.hub),
    "model": Check(inputs.model, ("hub",)),
    "tokenizer": Check(inputs.tokenizer, ("hub",)),
    "data": Check(inputs.data, ("hub",)),
    "pairs": Check(inputs.pairs, ("tokenizer", "data")),
    "files": Check(surroundings.files, ("cluster",)),
    "batch": Check(arithmetic.batch),
    "steps": Check(arithmetic.steps, ("tokenizer", "data")),
    "warm-up": Check(arithmetic.warm_up, ("steps",)),
    "memory": Check(arithmetic.memory, ("cluster", "model")),
    "disk": Check(arithmetic.disk, ("storage", "model")),
    "upload": Check(surroundings.upload),
    "time": Check(trial.duration, ("storage", "workers", "model", "tokenizer", "data", "steps", "warm-up", "memory")),
}


def examine(patient: Patient, checks: Mapping[str, Check] = CHECKS) -> Iterator[Finding]:
    """One after the other, as soon as each is known."""
    sound: set[str] = set()
    for name, check in checks.items():
        finding = _look(name, check, patient, [needed for needed in check.needs if needed not in sound])
        if finding.state in ("green", "yellow"):
            sound.add(name)
        yield finding


def _look(name: str, check: Check, patient: Patient, lacking: list[str]) -> Finding:
    if lacking:
        return Finding(name, "unchecked", f"not checked, because {lacking[0]} is not sound")
    try:
        found = check.look(patient)
    except Unchecked as reason:
        return Finding(name, "unchecked", f"not checked: {reason}")
    except MixDPOError as error:
        return Finding(name, "red", " ".join(str(error).split()))
    return Finding(name, "yellow", found.text) if isinstance(found, Caution) else Finding(name, "green", found)
