"""A phase that works, for tests: in a file that a process of its own imports without libraries."""

from __future__ import annotations

from tests.measure.phases import Measurement, Report


def works(measurement: Measurement, report: Report, number: int = 1) -> None:
    report(what="a number", number=number, seen=len(measurement.earlier))
