"""The documentation site: `make docs` builds it into build/docs; a warning is an error."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from pathlib import Path
from typing import Any

from sphinx.ext.napoleon import Config, GoogleDocstring

import naflow_fx

project, author = "naflow_fx", "naflow_fx developers"
version = release = naflow_fx.__version__
copyright = author

extensions = [
    "myst_nb",  # Markdown, and notebooks that are run while the site is built
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_argparse_cli",
    "sphinx_copybutton",
]
exclude_patterns = ["tutorials/.ipynb_checkpoints"]
myst_heading_anchors = 3

# `make tutorials` runs the notebooks into the same cache, so that each is run once.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).resolve().parents[1] / "build" / "notebooks")
nb_execution_timeout = 300
nb_output_stderr = "remove"  # progress, and what libraries log
nb_execution_raise_on_error = nb_execution_show_tb = True

# Docstrings: single backticks around code, types in signatures; sections are Google's, below.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autosummary_generate = False

python_maximum_signature_line_length = 88

smartquotes_action = "D"  # dashes alone: quotes in the text are often Python's
pygments_dark_style = "github-dark"
html_theme = "furo"
html_title = "naflow_fx"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"

# References inside the package lead somewhere; to other packages' sites they would need a network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!naflow_fx\.).*"),
    (
        "py:class",
        r"naflow_fx\.(job\.Job|flow\.(data\.About|statistics\.T)|artefacts\.metadata\.Value|dataset\.(spec\.Opened|results\.TorchRows))",
    ),
]


def read_sections(app: Any, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Google's sections of a docstring; napoleon by itself takes "N: ..." of a property for a type.

    Several names with one text, "a, b: ...", stay together: they aren't the type of the last.
    """
    if what not in ("attribute", "property", "data"):
        lines[:] = GoogleDocstring(lines, Config(napoleon_use_ivar=True), app, what).lines()
        lines[:] = [
            re.sub(
                r"^:(\w+) (\w+(?:, \w+)+):", lambda m: f":{m[1]} {m[2].replace(', ', '/')}:", line
            )
            for line in lines
        ]


def sign_data(app: Any, what: str, name: str, of: Any, *_: Any) -> tuple[str, str] | None:
    """The fields of a dataclass that has a `__new__`, too, which Sphinx would show."""
    if not (dataclasses.is_dataclass(of) and "__new__" in vars(of)):
        return None
    found = inspect.signature(of.__init__)
    kept = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    return str(inspect.Signature(kept)), ""


COLAB = "https://colab.research.google.com"
REPOSITORY = os.environ.get("GITHUB_REPOSITORY")  # where GitHub builds the site; else no badges


def badge(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    """A tutorial's page begins with a link that opens the notebook in Colab."""
    if REPOSITORY and re.match(r"tutorials/\d", page):
        link = f"{COLAB}/github/{REPOSITORY}/blob/main/docs/{page}.ipynb"
        image = f'<img alt="Open in Colab" src="{COLAB}/assets/colab-badge.svg">'
        context["body"] = f'<p><a href="{link}">{image}</a></p>{context["body"]}'


def setup(app: Any) -> None:
    """Docstrings are read by `read_sections`, signatures by `sign_data`."""
    app.connect("html-page-context", badge)
    app.connect("autodoc-process-signature", sign_data)
    app.connect("autodoc-process-docstring", read_sections)
