"""Pages that open offline: one HTML file each, in one style, that fetches nothing and runs no script of others.

Values are text: whatever stands in them is shown and never read as markup. What UTF-8 cannot hold becomes a question
mark.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

STYLE = "page.css"


def rendered_page(package: str, template: str, **values: Any) -> bytes:
    """A template of this package, which includes the pages' style as page.css."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> str:
        return files("mixdpo_ray" if name == STYLE else package).joinpath(name).read_text("utf-8")

    environment = Environment(
        loader=FunctionLoader(load), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values).encode(errors="replace")
