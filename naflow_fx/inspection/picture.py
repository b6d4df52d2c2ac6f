"""Pictures by Graphviz, and the formats of an inspection's files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from naflow_fx.errors import ArtefactError, first_line

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
            "the picture is drawn by Graphviz, whose program dot is not on the PATH; install the "
            "package graphviz (apt-get install graphviz, brew install graphviz, conda install "
            "graphviz), or write .html, which needs nothing"
        )
    sharp = ["-Gdpi=144"] if kind == "png" else []
    made = subprocess.run([program, f"-T{kind}", *sharp], input=text.encode(), capture_output=True)
    if made.returncode:
        reason = first_line(RuntimeError(made.stderr.decode(errors="replace")))
        raise ArtefactError(f"Graphviz could not draw the graph: {reason}")
    return made.stdout


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
