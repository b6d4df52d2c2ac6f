"""Some of a flow's layers: those that names and globs ask for, or a few evenly along depth."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from naflow_fx.errors import FlowError

if TYPE_CHECKING:
    from naflow_fx.flow import AttentionFlow


def choose(flow: AttentionFlow, layers: Sequence[str] | None) -> list[str]:
    """The flow's call sites that a name or glob asks for, in order; FlowError if one finds none."""
    if layers is None:
        return list(flow.maps)
    wanted = [layers] if isinstance(layers, str) else list(layers)
    globs = [one for one in wanted if one not in flow.maps]
    lost = [one for one in globs if not any(fnmatchcase(name, one) for name in flow.maps)]
    if lost or not wanted:
        known = ", ".join(spread(list(flow.maps), 6))
        raise FlowError(f"No layer is called {', '.join(lost) or '...'}; there are {known}, ...")
    return [n for n in flow.maps if n in wanted or any(fnmatchcase(n, one) for one in globs)]


def spread(names: list[str], count: int) -> list[str]:
    """At most `count` of the names, evenly spread, first and last included."""
    if len(names) <= count:
        return names
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]
