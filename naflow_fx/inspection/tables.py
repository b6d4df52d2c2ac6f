"""The inspection as text: a table of blocks, and one of call sites."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from naflow_fx.errors import table
from naflow_fx.inspection import words
from naflow_fx.inspection.fold import Unit, fold
from naflow_fx.inspection.records import Node, Steps

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
    held = words.running(row.nodes)
    return [
        row.name,
        row.nodes[0].operator if len(row.nodes) == 1 else str(len(row.nodes)),
        words.size_text(sum(h.bytes_per_image for h in held)) if held else "-",
        ", ".join(words.ways(steps)) or "-",
        words.number_text(words.mean(n.residual for n in steps)),
        words.number_text(words.mean(n.norm_ratio for n in steps)),
    ]


def _site(node: Node, step: Node | None, forward: dict[str, Node]) -> list[str]:
    held = [f"{words.capture_name(h, node.id)} {words.size_text(h.bytes_per_image)}"
            for h in node.captures if not h.constant]  # fmt: skip
    found = [node.name, node.operator, words.shape_text(node.shape), ", ".join(held) or "-"]
    if step is None:
        return [*found, *["-"] * (len(SITES) - len(found))]
    names = [forward[id].name for id in step.operators if id in forward]
    inverts = ", ".join(names) if len(names) <= MANY else f"{names[0]} .. {names[-1]}"
    return [
        *found, words.way(step), step.equation, inverts or "-",
        *map(words.number_text, (step.sigma_max, step.residual, step.norm_ratio)),
        step.region or "-",
    ]  # fmt: skip
