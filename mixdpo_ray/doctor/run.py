"""A whole examination, line by line as it goes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mixdpo_ray.cluster.connect import connected
from mixdpo_ray.doctor.checks import CHECKS, Check, examine
from mixdpo_ray.doctor.examination import Examination
from mixdpo_ray.doctor.finding import CheckFailed, Finding
from mixdpo_ray.doctor.format import line, summary
from mixdpo_ray.errors import MixDPOError
from mixdpo_ray.recipe.recipe import Recipe


@dataclass(frozen=True)
class ExaminationReport:
    findings: Sequence[Finding]

    def describe(self) -> str:
        return summary(self.findings)


def examine_all(recipe: Recipe, folder: Path | None = None, *, probe: bool = False) -> ExaminationReport:
    """Print what is found as it goes; raise where something is red. What needs no cluster is checked without one too.

    `folder`: where the jobs are started from; the current one.
    """
    terminal = sys.stdout.isatty()
    checks, findings = dict(CHECKS), []
    with ExitStack() as stack:
        try:
            stack.enter_context(connected(recipe.cluster))
        except MixDPOError as error:
            checks["cluster"] = _unreachable(error)
        for finding in examine(Examination(recipe, folder or Path.cwd(), probe), checks):
            print(line(finding, terminal=terminal), flush=True)
            findings.append(finding)
    red = [finding.check for finding in findings if finding.state == "red"]
    if red:
        verb = "is" if len(red) == 1 else "are"
        raise CheckFailed(f"{len(red)} of {len(findings)} checks {verb} red: {', '.join(red)}")
    return ExaminationReport(findings)


def _unreachable(error: MixDPOError) -> Check:
    def look(_: Examination) -> str:
        raise error

    return Check(look)
