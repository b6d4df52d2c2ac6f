"""The inspection as a networkx graph, and as DOT text for Graphviz."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import networkx as nx

from naflow_fx.inspection import words
from naflow_fx.inspection.records import Node

if TYPE_CHECKING:
    from naflow_fx.inspection.inspection import Inspection

COLOURS = {"forward": "#0072b2", "capture": "#b37700", "importance": "#00805c",
           "inverse": "#c05000", "map": "#8a4f7d"}  # fmt: skip


def as_networkx(inspection: Inspection) -> nx.DiGraph:
    """Nodes by id with the fields of `Node`, edges with their kind; the graph has the model."""
    graph = nx.DiGraph(model=inspection.model)
    for node in inspection.nodes:
        graph.add_node(node.id, **{k: v for k, v in asdict(node).items() if k != "id"})
    graph.add_edges_from((e.source, e.target, {"kind": e.kind}) for e in inspection.edges)
    return graph


def as_dot(inspection: Inspection) -> str:
    """A digraph: the forward pass in clusters by block, the rest beside it."""
    lines = [f"digraph {_quoted(inspection.model or 'program')} {{"]
    lines += ['  node [shape=box, fontname="monospace", fontsize=10]']
    lines += _cluster(inspection, "", 1)
    rest = [node for node in inspection.nodes if node.kind != "forward"]
    lines += [f"  {_node(node)}" for node in rest]
    for edge in inspection.edges:
        style = ", style=dashed, constraint=false" if edge.kind == "capture" else ""
        ends = f"{_quoted(edge.source)} -> {_quoted(edge.target)}"
        lines.append(f'  {ends} [color="{COLOURS[edge.kind]}"{style}]')
    return "\n".join([*lines, "}"]) + "\n"


def _cluster(inspection: Inspection, block: str, depth: int) -> list[str]:
    """The forward nodes of a block, then its blocks."""
    pad = "  " * depth
    inside = [n for n in inspection.nodes if n.kind == "forward" and n.block == block]
    lines = [f"{pad}{_node(node)}" for node in inside]
    for child in (b.id for b in inspection.blocks if b.parent == block):
        lines.append(f"{pad}subgraph {_quoted(f'cluster_{child}')} {{")
        lines.append(f"{pad}  label={_quoted(child)}")
        lines += [*_cluster(inspection, child, depth + 1), f"{pad}}}"]
    return lines


def _node(node: Node) -> str:
    what = node.how or (node.operator if node.kind == "forward" else node.kind)
    label = f"{node.name}\n{what} {words.shape_text(node.shape)}"
    return (f'{_quoted(node.id)} [label={_quoted(label)}, color="{COLOURS[node.kind]}", '
            f"tooltip={_quoted(node.doc)}]")  # fmt: skip


def _quoted(text: str) -> str:
    """A DOT string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
