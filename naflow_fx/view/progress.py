"""What a person sees on stderr while something takes its time."""

from __future__ import annotations

import sys

from rich import progress as bars
from rich.console import Console


def progress(count: bool = True, shown: bool | None = None) -> bars.Progress:
    """A progress bar, gone when done.

    Args:
        count: whether it counts; else it tells the time.
        shown: whether there is one at all; None: where stderr is a terminal.
    """
    visible = sys.stderr.isatty() if shown is None else shown
    console = Console(stderr=True, quiet=not visible)  # rich 13 ends a disabled bar with a newline
    return bars.Progress(
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn() if count else bars.TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not visible,
    )
