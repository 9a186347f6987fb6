"""A page as a reader meets it: its words, its figures, and whatever it would fetch."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna

from mixdpo_ray.search.report.page import StudyFacts, write_report

FETCHING = ("src", "href", "srcset", "action", "data", "poster", "background")


@dataclass
class WrittenPage(HTMLParser):
    tags: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    styles: str = ""
    figures: list[dict[str, Any]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    policy: str = ""
    words: str = ""
    _inside: str = ""

    def __post_init__(self) -> None:
        HTMLParser.__init__(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.references += [value for name, value in known.items() if name in FETCHING]
        self.anchors |= {known["id"]} & set(known.values()) if "id" in known else set()
        self.policy += known.get("content", "") if "http-equiv" in known else ""
        self._inside = known.get("type", tag) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "application/json":
            self.figures.append(json.loads(data))
        elif self._inside == "script":
            self.scripts.append(data)
        elif self._inside == "style":
            self.styles += data
        else:
            self.words = f"{self.words} {' '.join(data.split())}".replace("  ", " ")


def written(study: optuna.Study, facts: StudyFacts, folder: Path) -> WrittenPage:
    target = folder / "report.html"
    write_report(study, facts, str(target))
    page = WrittenPage()
    page.feed(target.read_text("utf-8"))
    page.close()
    return page
