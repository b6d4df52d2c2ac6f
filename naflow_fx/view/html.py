"""HTML from the templates beside this file, and pictures in it.

Every value is escaped, a missing one is an error.
"""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

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


def data_uri(picture: Image.Image, form: str, **options: Any) -> str:
    """A picture as the address of an image that is inside of a page.

    Args:
        picture: what is shown.
        form: "png" or "jpeg".
        options: of Pillow's writer.
    """
    file = io.BytesIO()
    picture.save(file, form, **options)
    return f"data:image/{form};base64,{base64.b64encode(file.getvalue()).decode()}"
