"""Folding: an inspection as rows in forward order, each a node or a whole block of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from naflow_fx.errors import GraphError
from naflow_fx.inspection.records import Node, Steps
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
    blocks = [block.id for block in inspection.blocks]
    if expand is not None:
        return _rows(inspection, _matching(blocks, [expand] if isinstance(expand, str) else expand))
    opened, found = {""}, _rows(inspection, {""})
    for depth in range(max(map(_depth, blocks))):
        opened = opened | {block for block in blocks if _depth(block) == depth + 1}
        more = _rows(inspection, opened)
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
        raise _unknown([b.id for b in inspection.blocks], block)
    row_of = {node.id: row.id for row in rows for node in row.nodes}
    links = [(row_of[edge.source], row_of[edge.target]) for edge in inspection.edges
             if edge.kind == "forward"]  # fmt: skip
    near = {end for link in links if inside & set(link) for end in link}
    return [row for row in rows if row.id in inside | near]


def _matching(blocks: Sequence[str], globs: Sequence[str]) -> set[str]:
    """The blocks that a glob names, and those around them."""
    opened = {""}
    for glob in globs:
        named, _ = matching(filter(None, blocks), [glob])
        if not named and not glob.endswith("*"):
            raise _unknown(blocks, glob)
        opened |= {around for block in named for around in _around(block)}
    return opened


def _unknown(blocks: Sequence[str], name: str) -> GraphError:
    """The error of a block that is not there."""
    known = [block for block in blocks if block]
    some = f"first ones: {', '.join(known[:8])}" if known else "this network has none"
    return GraphError(f"no block is named {name} (of {len(known)}); {some}")


def _rows(inspection: Steps, opened: set[str]) -> list[Unit]:
    found: dict[str, list[Node]] = {}
    inside: dict[str, str] = {}
    for node in inspection.nodes:
        if node.kind == "forward":
            at, parent = _place(node, opened)
            found.setdefault(at, []).append(node)
            inside[at] = parent
    return [_row(id, inside[id], tuple(nodes)) for id, nodes in found.items()]


def _row(id: str, block: str, nodes: tuple[Node, ...]) -> Unit:
    folded = len(nodes) > 1
    return Unit(id, id if folded else nodes[0].name, block, folded, nodes)


def _place(node: Node, opened: set[str]) -> tuple[str, str]:
    """The id of the row that a node is in, and the opened block around it."""
    parent = ""
    for block in _around(node.block):
        if block not in opened:
            return block, parent
        parent = block
    return node.id, parent


def _around(block: str) -> list[str]:
    """The block and those around it, the outermost first, without the model itself."""
    parts = block.split(".") if block else []
    return [".".join(parts[:depth]) for depth in range(1, len(parts) + 1)]


def _depth(block: str) -> int:
    return len(block.split(".")) if block else 0
