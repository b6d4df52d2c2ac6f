"""The command line `naflow-fx`: explain photos, inspect the graph, export it, list models."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
from collections.abc import Sequence

from naflow_fx.cli.parser import make_parser
from naflow_fx.errors import NaflowError, is_out_of_memory
from naflow_fx.view.terminal import say

__all__ = ["main"]

FAILED, INTERRUPTED, BROKEN_PIPE = 2, 130, 141
STOPPED = "interrupted; photos that were finished are kept, nothing is half-written"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: this process's) and give its exit code.

    0: done. 2: a user's error, told in one line on stderr. 130: Ctrl-C. 141: the reader of our
    output went away. Anything else that is raised is a bug, and its traceback is shown.
    """
    _open_streams()
    args = make_parser().parse_args(argv)
    try:
        if argv is None:
            _import_torch()
        args.command(args)
        sys.stdout.flush()
    except NaflowError as error:
        return _complain(str(error))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # quiet at exit
        return BROKEN_PIPE
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _complain(f"{place}{error.strerror or error}; check the path, the rights and space")
    except KeyboardInterrupt:
        say(f"naflow-fx: {STOPPED}", error=True)
        return INTERRUPTED
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return _complain("out of memory; choose fewer --layers, or another --device")
    return 0


def _open_streams() -> None:
    """Streams that are closed lead nowhere; what a stream's encoding lacks is written out."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # its number is taken, so that no file of ours gets it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _import_torch() -> None:
    """Import torch, which lives as long as the process, kept from the searches for garbage.

    They take a fifth of the time of importing it, and as long again later.
    """
    gc.disable()
    importlib.import_module("torch")
    gc.freeze()
    gc.enable()


def _complain(message: str) -> int:
    """Print a message of any number of lines as one on stderr; gives the exit code."""
    lines = [" ".join(line.split()) for line in message.splitlines() if line.strip()]
    joined = "".join(line + (" " if line[-1] in ".:;," else "; ") for line in lines).rstrip("; ")
    say(f"naflow-fx: error: {joined}", error=True)
    return FAILED
