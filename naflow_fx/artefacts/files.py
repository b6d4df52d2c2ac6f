"""Writing a file whole or not at all, and asking for packages that are extras."""

from __future__ import annotations

import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from naflow_fx.errors import ArtefactError

LOGGERS = ("torch.export", "torch.onnx", "torch.utils.cpp_extension", "onnxscript", "onnx_ir")


def check_name(path: Path, ending: str) -> None:
    """Nothing if a file can have that name.

    Raises:
        ArtefactError: `path` ends otherwise, or is a folder.
    """
    if path.suffix != ending:
        raise ArtefactError(f"{path}: wanted a name that ends in {ending}")
    if path.is_dir():
        raise ArtefactError(f"{path}: a folder is in the way; choose another name")


@contextmanager
def replacing(path: Path, ending: str) -> Iterator[Path]:
    """A path in the same folder for a new file, which takes the place of `path` at the end.

    If anything is raised, nothing remains and an earlier file at `path` stays as it is.

    Raises:
        ArtefactError: `path` ends otherwise, or is a folder.  OSError: it can't be written.
    """
    check_name(path, ending)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".naflow-", dir=path.parent) as stage:
        made = Path(stage) / path.name
        yield made
        made.replace(path)


def required(names: Sequence[str], extra: str, what: str) -> list[Any]:
    """Modules by name.

    Raises:
        ArtefactError: some are not installed, with the line that installs them.
    """
    found, missing = [], []
    for name in names:
        try:
            found.append(importlib.import_module(name))
        except ImportError:
            missing.append(name)
    if missing:
        raise ArtefactError(f"{what} needs {', '.join(missing)}; pip install 'naflow-fx[{extra}]'")
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and notes of exporters and loaders; errors still raise."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
