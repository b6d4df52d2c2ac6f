"""One run a folder: a lock that dies with its process, whatever kills it."""

from __future__ import annotations

import fcntl  # not on Windows
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

from naflow_fx.dataset import LOCK
from naflow_fx.errors import DatasetError

SHARED = 1 << 30  # the byte that ranks hold while they write a file that belongs to all of them
_here: set[Path] = set()  # record locks do not keep one process from itself


@contextmanager
def locked(
    folder: Path, rank: int | None = None
) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """The lock on an output folder; gives `alone`: what one rank of a run does at a time.

    A POSIX record lock: it belongs to this process alone, not to the workers that it forks, and
    is gone when the process is.  A run holds the whole file, a rank of several one byte of it:
    so runs exclude each other, and ranks of one run don't.

    Raises:
        DatasetError: another run has it, and who that is.
    """
    if (place := folder.resolve()) in _here:
        raise _taken(folder, "another run in this process")
    start, length = (0, 0) if rank is None else (rank, 1)
    with open(folder / LOCK, "a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except BlockingIOError:
            file.seek(0)
            raise _taken(folder, file.read() or "another run") from None
        if not rank:  # who it is, for the one who is refused
            file.truncate(0)
            file.write(f"another run (process {os.getpid()} on {socket.gethostname()}, since "
                       f"{time.strftime('%F %T')})")  # fmt: skip
            file.flush()
        _here.add(place)
        try:
            yield partial(_alone, file)
        finally:
            _here.discard(place)


def _taken(folder: Path, run: str) -> DatasetError:
    return DatasetError(f"{folder}: {run} writes here; wait until it is done, or choose another "
                        "folder")  # fmt: skip


@contextmanager
def _alone(file: TextIO) -> Iterator[None]:
    """Alone among the ranks of a run, which wait for each other here."""
    fcntl.lockf(file, fcntl.LOCK_EX, 1, SHARED)
    try:
        yield
    finally:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, SHARED)  # of a whole file's lock all else stays
