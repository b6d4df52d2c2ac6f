"""Text of strangers on a terminal: names of files, classes and layers can't steer it."""

from __future__ import annotations

import sys
import unicodedata

KEPT = "\n\t"
TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"  # the direction of writing


def printable(text: str) -> str:
    r"""The text with control characters and lone surrogates written out, such as \x1b."""
    return "".join(_shown(c) for c in text) if any(map(_is_control, text)) else text


def _is_control(char: str) -> bool:
    unsafe = unicodedata.category(char) in ("Cc", "Cs") or char in TURNS
    return unsafe and char not in KEPT


def _shown(char: str) -> str:
    return char.encode("unicode_escape").decode() if _is_control(char) else char


def say(text: str, error: bool = False) -> None:
    """Prints text, whatever it holds, on stdout or stderr."""
    print(printable(text), file=sys.stderr if error else sys.stdout, flush=error)
