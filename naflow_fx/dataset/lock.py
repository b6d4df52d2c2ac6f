"""One run a folder: a lock that dies with its process, whatever kills it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from naflow_fx.errors import DatasetError

LOCK = ".lock"
SHARED = 1 << 30  # the byte that ranks hold while they write a file that belongs to all of them
_here: set[tuple[str, int]] = set()  # record locks do not keep one process from itself


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
    import fcntl  # not on Windows

    key = (str(folder.resolve()), -1 if rank is None else rank)
    if any(key[0] == place for place, _ in _here):
        raise _taken(folder, "another run in this process")
    start, length = (0, 0) if rank is None else (rank, 1)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        except BlockingIOError:
            raise _taken(folder, _holder(descriptor)) from None
        if not rank:
            _sign(descriptor)
        _here.add(key)
        yield partial(_alone, descriptor, rank)
    finally:
        _here.discard(key)
        os.close(descriptor)


def _taken(folder: Path, run: str) -> DatasetError:
    return DatasetError(f"{folder}: {run} writes here; wait until it is done, or choose another "
                        "folder")  # fmt: skip


@contextmanager
def _alone(descriptor: int, rank: int | None) -> Iterator[None]:
    """Alone among the ranks of a run, which wait for each other here."""
    import fcntl

    if rank is None:
        yield
        return
    fcntl.lockf(descriptor, fcntl.LOCK_EX, 1, SHARED)
    try:
        yield
    finally:
        fcntl.lockf(descriptor, fcntl.LOCK_UN, 1, SHARED)


def _sign(descriptor: int) -> None:
    """Who holds the lock, for the one who is refused."""
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(facts).encode(), 0)


def _holder(descriptor: int) -> str:
    """Who signed."""
    try:
        facts: Any = json.loads(os.pread(descriptor, 4096, 0))
        return f"another run (process {facts['pid']} on {facts['host']}, since {facts['since']})"
    except (ValueError, KeyError, TypeError):
        return "another run"
