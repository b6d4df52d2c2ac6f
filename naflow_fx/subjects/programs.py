"""Networks as programs of torch.export, .pt2 files."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from naflow_fx.artefacts import read
from naflow_fx.artefacts.untrusted import check_archive
from naflow_fx.errors import ArtefactError, ModelError, first_line
from naflow_fx.subjects.network import Network
from naflow_fx.subjects.recipe import Recipe


def open_exported(recipe: Recipe) -> Network:
    """`FILE.pt2`: a program of torch.export, checked before it is loaded.

    Raises:
        ModelError: not such a file.  ArtefactError: it could run code.
    """
    path = checked(recipe)
    check_archive(path)
    return Network(path.stem, lambda _: _loaded(path), weights=path.name)


def _loaded(path: Path) -> torch.export.ExportedProgram:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(path)
    except Exception as error:  # of many kinds: a damaged file fails anywhere
        raise ModelError(f"{path}: no program of torch.export, or of another version of torch "
                         f"({first_line(error)})") from error  # fmt: skip


def checked(recipe: Recipe) -> Path:
    """The file; ModelError for none, for an artefact of ours, for options that it can't take."""
    path = Path(recipe.model)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; check the path")
    if recipe.weights is not None or recipe.model_args:
        raise ModelError(f"{path}: has its weights in it; leave weights and model_args out")
    try:
        read(path)
    except ArtefactError:
        return path
    raise ModelError(f"{path}: a network with its explainer; give it as --artefact {path}")
