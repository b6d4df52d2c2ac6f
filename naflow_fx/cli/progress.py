"""What a person sees while a command works."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)


@contextmanager
def news_aside() -> Iterator[None]:
    """Send what downloads print to stderr where that is a terminal, else nowhere."""
    with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        yield


def progress(count: bool = True) -> Progress:
    """A progress bar on stderr, gone when done; nothing at all unless stderr is a terminal."""
    columns: list[ProgressColumn]
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn()]
    columns += [MofNCompleteColumn()] if count else [TimeElapsedColumn()]
    terminal = sys.stderr.isatty()
    console = Console(stderr=True, quiet=not terminal)  # rich 13 ends a disabled bar with a newline
    return Progress(*columns, console=console, transient=True, disable=not terminal)
