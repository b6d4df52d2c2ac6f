"""What a person sees on stderr while something takes its time."""

from __future__ import annotations

import sys

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


def progress(count: bool = True, shown: bool | None = None) -> Progress:
    """A progress bar, gone when done.

    Args:
        count: whether it counts; else it tells the time.
        shown: whether there is one at all; None: where stderr is a terminal.
    """
    columns: list[ProgressColumn]
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn()]
    columns += [MofNCompleteColumn()] if count else [TimeElapsedColumn()]
    visible = sys.stderr.isatty() if shown is None else shown
    console = Console(stderr=True, quiet=not visible)  # rich 13 ends a disabled bar with a newline
    return Progress(*columns, console=console, transient=True, disable=not visible)
