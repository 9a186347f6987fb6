import codecs
import sys
from pathlib import Path

import pytest

from mixdpo_ray.wording import (
    clock_text,
    did_you_mean,
    duration_text,
    first_line,
    in_ascii,
    python_command,
    seconds_of,
    size_text,
)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (7.9, "0:07"), (247, "4:07"), (7300, "121:40")])
def test_a_clock_counts_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("4h", 14400), ("90m", 5400), ("1h30m", 5400), ("1h 5s", 3605), ("2d", 172800), ("7.5", 7.5)]
)
def test_a_time_is_read_as_a_person_writes_it(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "4 hours", "30m1h", "h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write 4h, 90m, 1h30m, or seconds"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (4.21, "4.2 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (87.4, "87 s"),
        (119.6, "2 min"),
        (725, "12 min 5 s"),
        (7199.7, "2 h"),
        (12_000, "3 h 20 min"),
        (90_000, "25 h"),
    ],
)
def test_a_duration_is_as_exact_as_matters(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**31, "2.0 GiB"), (3 * 2**40, "3.0 TiB")],
)
def test_a_size_has_the_unit_that_suits_it(number: float, text: str) -> None:
    assert size_text(number) == text


def test_of_an_error_only_the_first_line_is_said() -> None:
    assert first_line(ValueError("\nbad\nand more")) == "bad"
    assert first_line(ValueError()) == "ValueError"


def test_names_that_come_close_are_offered_and_all_where_none_does() -> None:
    known = ("dpo", "dpop", "simpo")
    assert did_you_mean("dop", known) == "did you mean dpop or dpo?"
    assert did_you_mean("dpo_norn", (*known, "dpo_nll", "dpo_norm")) == "did you mean dpo_norm or dpo_nll?"
    assert did_you_mean("reward_margn", ("rating_margin", "reward_margin")) == "did you mean reward_margin?"
    assert did_you_mean("simp", known) == "did you mean simpo?"
    assert did_you_mean("min_max", ("max_max", "max_min")) == "did you mean max_min?"
    assert did_you_mean("xyz", known) == "known: dpo, dpop, simpo"


def test_a_command_calls_the_python_that_runs_by_its_path_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "my work" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert python_command() == f"'{python}'"
    monkeypatch.chdir(tmp_path / "my work")
    assert python_command() == ".venv/bin/python"
    monkeypatch.setenv("PATH", str(python.parent))
    assert python_command() == "python"


def test_a_terminal_without_a_sign_shows_another_one_and_no_traceback() -> None:
    codecs.register_error("in_ascii", in_ascii)
    assert "0.5 ± 0.1, █▌ é".encode("ascii", "in_ascii") == b"0.5 +- 0.1, ## ?"
    assert "0.5 ± 0.1, █▌ é".encode("latin-1", "in_ascii") == b"0.5 \xb1 0.1, ## \xe9"
