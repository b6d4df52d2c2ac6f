"""Names of artefacts, and quiet while they are written."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
