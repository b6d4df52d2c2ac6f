"""Some of several layers: those that names and globs mean, or a few evenly along depth."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TypeVar

from naflow_fx.errors import FlowError, NaflowError

T = TypeVar("T")


def matching(names: Iterable[str], wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that names, globs and blocks mean, in their own order, and those of nothing.

    What is a name means it alone, even if it reads as a glob.  A block means its last name.
    """
    known = list(names)
    asked = without_blocks(known, wanted)
    globs = [one for one in asked if one not in known]
    lost = [one for one in globs if not any(fnmatchcase(name, one) for name in known)]
    return [n for n in known if n in asked or any(fnmatchcase(n, one) for one in globs)], lost


def without_blocks(names: Sequence[str], wanted: Iterable[str]) -> list[str]:
    """What is wanted, each name of a block (`layer4`) replaced by the last name in it."""
    found = []
    for one in wanted:
        inside = [] if one in names else [name for name in names if name.startswith(f"{one}.")]
        found.append(inside[-1] if inside else one)
    return found


def no_site(error: type[NaflowError], names: Sequence[str], missing: Sequence[str]) -> NaflowError:
    """The error, of the kind `error`, of call sites that are not among the `names`."""
    close = [name for one in missing for name in get_close_matches(one, names, 3, 0.4)]
    start = "Did you mean" if close else "There are"
    return error(f"no call site is named {', '.join(missing)} (of {len(names)}).\n"
                 f"  {start}: {', '.join(close or evenly(names, 6))}")  # fmt: skip


def choose(
    names: Sequence[str], layers: Sequence[str] | None, error: type[NaflowError] = FlowError
) -> list[str]:
    """The call sites that are asked for, in order; `error` if an entry finds none; None: all."""
    if layers is None:
        return list(names)
    wanted = [layers] if isinstance(layers, str) else list(layers)
    found, lost = matching(names, wanted)
    if lost or not wanted:
        raise no_site(error, names, lost or ["(no name given)"])
    return found


def evenly(names: Sequence[T], count: int) -> list[T]:
    """At most `count` (2 or more) of the names, evenly spread, first and last included."""
    if len(names) <= count:
        return list(names)
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]
