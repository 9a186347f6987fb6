"""Findings as lines for people: a mark, the check, what was found. Colour and signs on a terminal, words elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from mixdpo_ray.doctor.finding import Finding, State

SIGNS: dict[State, tuple[str, str]] = {
    "green": ("✓", "32"),
    "yellow": ("!", "33"),
    "red": ("✗", "31"),
    "unchecked": ("-", "2"),
}
PLAIN_SIGNS: dict[State, str] = {"green": "ok", "yellow": "note", "red": "RED", "unchecked": "-"}
WIDTH = len("tokenizer")  # the longest name of a check


def line(finding: Finding, *, terminal: bool) -> str:
    if not terminal:
        return f"{PLAIN_SIGNS[finding.state]:<4}  {finding.check:<{WIDTH}}  {finding.text}"
    sign, colour = SIGNS[finding.state]
    text = f"\033[2m{finding.text}\033[0m" if finding.state == "unchecked" else finding.text
    return f"\033[{colour}m{sign}\033[0m {finding.check:<{WIDTH}}  {text}"


def summary(findings: Sequence[Finding]) -> str:
    """The closing line where nothing is red."""
    of_state = {state: [finding.check for finding in findings if finding.state == state] for state in PLAIN_SIGNS}
    parts = [f"{len(of_state['green'])} checks are green"]
    if of_state["yellow"]:
        parts.append(f"worth a look: {', '.join(of_state['yellow'])}")
    if of_state["unchecked"]:
        parts.append(f"not checked: {', '.join(of_state['unchecked'])}")
    return "; ".join(parts)
