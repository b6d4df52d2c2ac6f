"""inspect_graph: from a generated program to its inspection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.inspection.inspection import Inspection
from naflow_fx.inspection.nodes import Run, Writer
from naflow_fx.inspection.program import Place, Program
from naflow_fx.inspection.records import Block, Edge, Link, Node, Row
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes._inverse_steps import PROPAGATED, REMAINDER


def inspect_graph(
    gm: fx.GraphModule, options: Options | None = None, run: Run | None = None, model: str = ""
) -> Inspection:
    """The inspection of a generated program.

    Args:
        gm: as `naflow_fx.compile` generates it.
        options: how it was compiled; None: the default.
        run: numbers of a run; None: they are left out.
        model: its name.
    """
    program = Program(gm)
    writer = Writer(program, options or Options(), run or Run())
    nodes = tuple(writer.node(place) for place in program.places.values())
    return Inspection(model, _blocks(nodes), nodes, _edges(program), _rows(gm))


def _blocks(nodes: Sequence[Node]) -> tuple[Block, ...]:
    """Every block that a node is in, and the blocks around it, in forward order."""
    merges = {node.block for node in nodes if node.how in (REMAINDER, PROPAGATED)}
    found: dict[str, Block] = {}
    for node in nodes:
        parts = node.block.split(".") if node.block else []
        for depth in range(len(parts) + 1):
            id = ".".join(parts[:depth])
            parent = ".".join(parts[: depth - 1]) if depth else None
            found.setdefault(id, Block(id, parent, id in merges))
    return tuple(found.values())


def _edges(program: Program) -> tuple[Edge, ...]:
    """Who reads whom."""
    found: dict[Edge, None] = {}
    for place in program.places.values():
        for node in program.reads(place):
            source = program.source(node, place)
            if source is not None:
                found[Edge(source.id, place.id, _link(source, place))] = None
    return tuple(found)


def _link(source: Place, reader: Place) -> Link:
    """What flows from one step to another."""
    if source.kind == "forward":
        return "forward" if reader.kind == "forward" else "capture"
    return "inverse" if source.kind == "map" else source.kind


def _rows(gm: fx.GraphModule) -> tuple[Row, ...]:
    """One per call site that is computed."""
    result: Any = _graph.output_node(gm.graph).args[0]
    by_site = {n.meta[keys.SITE]: n for n in gm.graph.nodes
               if keys.LABELS in n.meta and keys.SITE in n.meta}  # fmt: skip
    return tuple(_row(by_site[site]) for site in result["maps"])


def _row(node: fx.Node) -> Row:
    step = node.meta.get(keys.STEP)
    captures = tree_leaves(list(node.meta.get(keys.CAPTURES, {}).values()))
    return Row(
        layer=node.meta[keys.SITE],
        operator=node.meta.get(keys.RULE, "input"),
        shape="x".join("N" if size == -1 else str(size) for size in node.meta[keys.SHAPE]),
        captures=", ".join(captures) or "-",
        inverse=step.node if step else "-",
        kind=step.kind if step else "-",
        equation=step.equation if step else "-",
        importance=node.meta.get(keys.IMPORTANCE, "-"),
        region=(step.region if step else "") or "-",
    )
