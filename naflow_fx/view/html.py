"""HTML from the templates beside this file: every value is escaped, a missing one is an error."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # of pages without a script


@cache
def _environment() -> Environment:
    """What the templates have in common."""
    return Environment(loader=PackageLoader("naflow_fx.view"), autoescape=True,
                       undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                       keep_trailing_newline=True)  # fmt: skip


def render(template: str, **values: Any) -> str:
    """The text of a template of `templates/` with these values."""
    return _environment().get_template(template).render(values)
