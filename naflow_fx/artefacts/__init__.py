"""Artefacts: explainers as files that run without this package, and the way back.

``explainer.export(path)`` writes a .pt2 of torch.export, ``explainer.package(path)`` a compiled
package of AOTInductor, ``explainer.to_onnx(path)`` an ONNX model.  `read` tells what is in a file
without running it, `load` makes it callable as the explainer was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from naflow_fx.artefacts.metadata import KINDS, Kind, Metadata, read
from naflow_fx.errors import ArtefactError

if TYPE_CHECKING:
    from naflow_fx.artefacts.artefact import Artefact

__all__ = ["ENDINGS", "KINDS", "Kind", "Metadata", "check_name", "load", "read"]
ENDINGS: dict[Kind, str] = {"pt2": ".pt2", "aoti": ".pt2", "onnx": ".onnx"}


def check_name(path: Path, ending: str) -> None:
    """Nothing if a file of that ending can have that name.

    Raises:
        ArtefactError: `path` ends otherwise, or is a folder.
    """
    if path.suffix != ending:
        raise ArtefactError(f"{path}: wanted a name that ends in {ending}")
    if path.is_dir():
        raise ArtefactError(f"{path}: a folder is in the way; choose another name")


def load(path: str | Path, device: Any = None, trusted: bool = False) -> Artefact:
    """The artefact in a file, ready to call; see `Artefact`."""
    from naflow_fx.artefacts.artefact import Artefact

    return Artefact(path, device, trusted)
