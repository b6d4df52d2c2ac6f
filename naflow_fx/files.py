"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from naflow_fx.errors import FlowError

DRAFT = ".naflow-"  # how the names of what is being written begin


@contextmanager
def replacing(path: Path, draft: str = DRAFT, durable: bool = False) -> Iterator[Path]:
    """A path in the same folder, which is made, for a new file that replaces `path` at the end.

    If anything is raised, nothing remains and an earlier file at `path` stays as it is.

    Args:
        path: of the file.
        draft: how the name of the folder begins in which the new file is made.
        durable: at the end it is on the disk, whatever happens to the machine.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=draft, dir=path.parent) as stage:
        made = Path(stage) / path.name
        yield made
        if durable:
            flush(made)
        os.replace(made, path)
        if durable:
            flush(path.parent)


def flush(path: Path) -> None:
    """What is in a file, or which names are in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, content: str | bytes, draft: str = DRAFT, durable: bool = False) -> Path:
    """Write a file, text as UTF-8 with plain newlines, whole or not at all; gives its path.

    Raises:
        OSError: it can't be written; what was there stays.
    """
    with replacing(path, draft, durable) as made:
        made.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A path for new files on the file system of `folder`, removed at the end whatever happens.

    In `folder` itself where that exists (it may be a mount point), else in the nearest folder
    above. Raises FlowError where a file is in the way, OSError where nothing can be written.
    """
    base = folder.absolute()
    while not base.exists():
        base = base.parent
    if not base.is_dir():
        raise FlowError(f"{base} is a file, not a folder; choose another place.")
    with tempfile.TemporaryDirectory(prefix=DRAFT, dir=base) as stage:
        yield Path(stage) / "new"
