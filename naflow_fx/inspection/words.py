"""Short texts about nodes, for pictures and tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from naflow_fx.inspection.records import Captured, Node

UNITS = ("B", "KB", "MB", "GB")


def size_text(count: int) -> str:
    """Bytes in a unit of 1024: "25 KB"."""
    size, unit = float(count), 0
    while size >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.{1 if unit and size < 10 else 0}f} {UNITS[unit]}"


def shape_text(shape: Sequence[int]) -> str:
    """A shape without its batch: "64x56x56"; "1" where nothing is left."""
    return "x".join(str(size) for size in shape if size != -1) or "1"


def number_text(value: float | None, digits: int = 3) -> str:
    """A few digits; "< 1e-6" of what is rounding, "-" where there is none."""
    if value is not None and 0 < value < 1e-6:
        return "< 1e-6"
    return "-" if value is None else f"{value:.{digits}g}"


def way(node: Node) -> str:
    """How an inverse step works; of a region: that it is one."""
    joint = node.how == "least squares" and node.equation.startswith("Eq. 7")
    return "region" if joint else node.how


def ways(nodes: Iterable[Node]) -> list[str]:
    """How many steps there are of which kind, most frequent first: "6 exact", "2 regions"."""
    found = Counter(way(node) for node in nodes if node.operators)
    plural = {"region": "regions", "remainder": "remainders"}
    return [f"{n} {plural.get(word, word) if n > 1 else word}" for word, n in found.most_common()]


def capture_name(held: Captured, owner: str) -> str:
    """What is captured, without the name of whom: "mask"."""
    return held.name.removeprefix("folded_").removeprefix(f"{owner}_")


def running(nodes: Iterable[Node]) -> list[Captured]:
    """What a run captures, each once; constants left out."""
    found = {held.name: held for node in nodes for held in node.captures if not held.constant}
    return list(found.values())


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are there."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
