"""Files of an inspection: pictures by Graphviz, text, the page."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from naflow_fx.errors import ArtefactError, first_line

if TYPE_CHECKING:
    from naflow_fx.inspection.inspection import Globs, Inspection

DRAWN = ("svg", "png", "pdf")
FORMATS = (*DRAWN, "dot", "json", "html", "txt")


def draw(text: str, kind: str) -> bytes:
    """DOT text as a picture.

    Args:
        text: what is drawn.
        kind: "svg", "png" or "pdf".

    Raises:
        ArtefactError: Graphviz is missing, or failed.
    """
    program = shutil.which("dot")
    if program is None:
        raise ArtefactError(
            "the picture is drawn by Graphviz, whose `dot` is not on the PATH: install the "
            "package graphviz (apt-get install graphviz, brew install graphviz, conda install "
            "graphviz), or write .html, which needs nothing"
        )
    sharp = ["-Gdpi=144"] if kind == "png" else []
    made = subprocess.run([program, f"-T{kind}", *sharp], input=text.encode(), capture_output=True)
    if made.returncode:
        reason = first_line(RuntimeError(made.stderr.decode(errors="replace")))
        raise ArtefactError(f"Graphviz could not draw the graph: {reason}")
    return made.stdout


def save(inspection: Inspection, path: Path, kind: str, expand: Globs, only: str | None) -> Path:
    """Write the file; see `Inspection.save`."""
    if kind == "html":
        from naflow_fx.viewer import save_graph

        save_graph(path, inspection, title=inspection.model)
    else:
        path.write_bytes(content(inspection, kind, expand, only))
    return path


def kind_of(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        ArtefactError: none of ours.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ArtefactError(f"{path}: the name must end in one of {known}")
    return kind


def content(inspection: Inspection, kind: str, expand: Globs, only: str | None) -> bytes:
    """What a file of that kind holds."""
    if kind in DRAWN:
        return draw(inspection.to_dot(expand, only), kind)
    if kind == "dot":
        return inspection.to_dot(expand or "*", only).encode()
    text = inspection.to_json(indent=1) if kind == "json" else str(inspection)
    return f"{text}\n".encode()
