"""The inspection as text: a table of blocks, one of call sites; the words that pictures share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from naflow_fx.errors import table
from naflow_fx.inspection.fold import Unit, fold
from naflow_fx.inspection.records import Captured, Node, Steps

BLOCKS = ("block", "operators", "captured", "inverse", "residual", "norm ratio")
SITES = ("layer", "operator", "shape", "captured", "inverse", "equation", "inverts", "sigma_max",
         "residual", "norm ratio", "region")  # fmt: skip
MANY = 3  # operators, beyond which they are counted


def as_text(inspection: Steps) -> str:
    """Headline, blocks (folded as in the picture), then every call site, each in forward order."""
    forward = {n.id: n for n in inspection.nodes if n.kind == "forward"}
    inverse = [n for n in inspection.nodes if n.kind == "inverse"]
    blocks = [_block(row, inverse) for row in fold(inspection)]
    made = {node.name: node for node in inverse}
    wanted = {row.layer for row in inspection.rows}
    sites = [_site(n, made.get(n.name), forward) for n in forward.values() if n.name in wanted]
    return "\n".join([inspection.headline, "", _table(BLOCKS, blocks), "", _table(SITES, sites)])


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns with a head; columns in which nothing is known are left out."""
    body = [list(row) for row in rows]
    kept = [i for i in range(len(names)) if not i or any(row[i] != "-" for row in body)]
    head = [[names[i] for i in kept], ["-" * len(names[i]) for i in kept]]
    return table([*head, *([row[i] for i in kept] for row in body)], indent="")


def _block(row: Unit, inverse: Sequence[Node]) -> list[str]:
    ids = {node.id for node in row.nodes}
    steps = [n for n in inverse if n.operators and n.operators[-1] in ids]
    held = running(row.nodes)
    return [
        row.name,
        row.nodes[0].operator if len(row.nodes) == 1 else str(len(row.nodes)),
        size_text(sum(h.bytes_per_image for h in held)) if held else "-",
        ", ".join(ways(steps)) or "-",
        number_text(mean(n.residual for n in steps)),
        number_text(mean(n.norm_ratio for n in steps)),
    ]


def _site(node: Node, step: Node | None, forward: dict[str, Node]) -> list[str]:
    held = [f"{capture_name(h, node.id)} {size_text(h.bytes_per_image)}"
            for h in node.captures if not h.constant]  # fmt: skip
    found = [node.name, node.operator, shape_text(node.shape), ", ".join(held) or "-"]
    if step is None:
        return [*found, *["-"] * (len(SITES) - len(found))]
    names = [forward[id].name for id in step.operators if id in forward]
    inverts = ", ".join(names) if len(names) <= MANY else f"{names[0]} .. {names[-1]}"
    return [
        *found,
        way(step),
        step.equation,
        inverts or "-",
        *map(number_text, (step.sigma_max, step.residual, step.norm_ratio)),
        step.region or "-",
    ]


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
    """The mean of the numbers that are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
