"""Sites: what a flow has of every call site, by name; a name that it lacks is told in words."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NoReturn, TypeVar

from naflow_fx.errors import FlowError

V = TypeVar("V")
KEPT = ("bpfm", "importance", "used", "neuron_times")  # what is there if `keep=` asks for it


class SiteError(FlowError, KeyError):
    """A flow has nothing of a call site of that name."""

    __str__ = Exception.__str__  # a KeyError would show the message quoted


class Sites(OrderedDict[str, V]):
    """Call site -> value, in forward order.

    Attributes:
        part: the field of the flow that it is, such as "maps".
    """

    def __init__(self, entries: Iterable[tuple[str, V]] = (), part: str = "maps") -> None:
        super().__init__(entries)
        self.part = part

    def __missing__(self, name: Any) -> NoReturn:
        near = difflib.get_close_matches(str(name), self, 5) or list(self)[:5]
        if not self and self.part in KEPT:
            hint = f'nothing is kept of it: nf.compile(..., keep="{self.part}")'
        else:
            hint = f"near: {', '.join(near) or 'none'}; list(flow.{self.part}) has all {len(self)}"
        raise SiteError(f"flow.{self.part} has no call site {name!r}; {hint}")
