"""Escapes control characters in names of strangers' files, classes and layers for a terminal."""

from __future__ import annotations

import re
import sys

CONTROL = r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # but for the tab and the end of a line
TURNS = r"\u202a-\u202e\u2066-\u2069"  # the direction of writing
SURROGATES = r"\ud800-\udfff"


def printable(text: str) -> str:
    r"""The text with control characters and lone surrogates written out, such as \x1b."""
    unsafe = f"[{CONTROL}{TURNS}{SURROGATES}]"
    return re.sub(unsafe, lambda found: found[0].encode("unicode_escape").decode(), text)


def say(text: str, error: bool = False) -> None:
    """Prints text, whatever it holds, on stdout or stderr."""
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=error)
