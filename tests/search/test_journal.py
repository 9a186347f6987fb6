"""A study's journal is verified when it is opened, and what a killed driver left of a line is removed."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest

from mixdpo_ray.errors import StorageError
from mixdpo_ray.search.journal import CHECKSUM, open_journal


def values(path: Path) -> list[float | None]:
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(open_journal(path)))
    return [trial.value for trial in study.trials]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "study" / "optuna.journal"
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name="s", storage=optuna.storages.JournalStorage(open_journal(path)))
    study.optimize(lambda trial: float(trial.number), n_trials=3)
    return path


def test_a_journal_is_read_as_it_was_written(path: Path) -> None:
    assert values(path) == [0.0, 1.0, 2.0]
    assert all(CHECKSUM in json.loads(line) for line in path.read_text().splitlines())


def test_a_changed_value_is_named_by_its_line(path: Path) -> None:
    lines = path.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if '"values":[1.0]' in line)
    path.write_text("\n".join([*lines, ""]).replace('"values":[1.0]', '"values":[3.0]'))
    with pytest.raises(StorageError, match=rf"optuna\.journal line {number + 1} has other content"):
        values(path)


def test_half_a_line_of_a_killed_driver_is_removed(path: Path) -> None:
    content = path.read_bytes()
    last = content.rstrip(b"\n").rpartition(b"\n")[2]
    for cut in (1, len(last) // 2, len(last)):
        path.write_bytes(content + last[:cut])
        assert values(path) == [0.0, 1.0, 2.0]
        assert path.read_bytes() == content


def test_a_whole_line_without_its_end_is_damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(StorageError, match="other content"):
        values(path)


def test_a_journal_from_before_there_were_checksums_is_continued(path: Path) -> None:
    logs = [json.loads(line) for line in path.read_text().splitlines()]
    for log in logs:
        del log[CHECKSUM]
    path.write_text("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs))
    study = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(open_journal(path)))
    study.optimize(lambda _: 9.0, n_trials=1)
    assert values(path) == [0.0, 1.0, 2.0, 9.0]
