"""Folding: an inspection as rows in forward order, each a node or a whole block of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from naflow_fx.errors import GraphError
from naflow_fx.inspection.records import Node, Steps, around
from naflow_fx.selection import matching

LIMIT = 40  # rows: blocks are opened, level by level, as long as there are no more


@dataclass(frozen=True)
class Unit:
    """One row: a forward node, or a folded block.

    Attributes:
        id: of the node or of the block.
        name: as the model has it.
        block: the opened block that it is in, "" for the model itself.
        folded: whether it is a block of several nodes.
        nodes: the forward nodes.
    """

    id: str
    name: str
    block: str
    folded: bool
    nodes: tuple[Node, ...]


def fold(inspection: Steps, expand: Sequence[str] | str | None = None) -> list[Unit]:
    """The rows of an inspection.

    Args:
        inspection: what is folded.
        expand: globs of the blocks to open, those around them too; None: level by level, as many
            as leave the picture readable.

    Raises:
        GraphError: a glob that no block matches.
    """
    if expand is not None:
        globs = [expand] if isinstance(expand, str) else expand
        named, lost = matching(_blocks(inspection), globs)
        for glob in lost:
            if not glob.endswith("*"):
                raise _unknown(inspection, glob)
        return _rows(inspection, {block for name in named for block in around(name)})
    blocks, found = _blocks(inspection), _rows(inspection, set())
    for depth in range(1, max((len(around(block)) for block in blocks), default=0) + 1):
        more = _rows(inspection, {block for block in blocks if len(around(block)) <= depth})
        if len(more) > LIMIT:
            break
        found = more
    return found


def cut(inspection: Steps, rows: Sequence[Unit], block: str) -> list[Unit]:
    """The rows of one block, those that it reads and those that read it.

    Raises:
        GraphError: no such block.
    """
    inside = {row.id for row in rows if f"{row.name}.".startswith(f"{block}.")}
    if not inside:
        raise _unknown(inspection, block)
    row_of = {node.id: row.id for row in rows for node in row.nodes}
    links = [(row_of[edge.source], row_of[edge.target]) for edge in inspection.edges
             if edge.kind == "forward"]  # fmt: skip
    near = {end for link in links if inside & set(link) for end in link}
    return [row for row in rows if row.id in inside | near]


def _blocks(inspection: Steps) -> list[str]:
    """All but the model itself."""
    return [block.id for block in inspection.blocks if block.id]


def _unknown(inspection: Steps, name: str) -> GraphError:
    """The error of a block that is not there."""
    known = _blocks(inspection)
    some = f"first ones: {', '.join(known[:8])}" if known else "this network has none"
    return GraphError(f"no block is named {name} (of {len(known)}); {some}")


def _rows(inspection: Steps, opened: set[str]) -> list[Unit]:
    found: dict[tuple[str, str], list[Node]] = {}
    for node in inspection.nodes:
        if node.kind == "forward":
            found.setdefault(_place(node, opened), []).append(node)
    return [_row(*place, tuple(nodes)) for place, nodes in found.items()]


def _row(id: str, block: str, nodes: tuple[Node, ...]) -> Unit:
    folded = len(nodes) > 1
    return Unit(id, id if folded else nodes[0].name, block, folded, nodes)


def _place(node: Node, opened: set[str]) -> tuple[str, str]:
    """The id of the row that a node is in, and the opened block around it."""
    parent = ""
    for block in around(node.block):
        if block not in opened:
            return block, parent
        parent = block
    return node.id, parent
