"""The inspection as a networkx graph, and as DOT text for Graphviz."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import pairwise

import networkx as nx

from naflow_fx.inspection.fold import Unit
from naflow_fx.inspection.parts import COLUMNS, Part, links_of, parts_of
from naflow_fx.inspection.records import Kind, Steps

COLOURS = {
    "forward": ("#0072b2", "#eaf4fa"),
    "capture": ("#b37700", "#fdf5e3"),
    "importance": ("#00805c", "#e6f5f0"),
    "inverse": ("#c05000", "#fdeee4"),
    "map": ("#8a4f7d", "#f7ecf4"),
}  # of a box's border and lines, and of its inside
STYLE = """\
  graph [newrank=true, nodesep=0.15, ranksep=0.3, fontname="DejaVu Sans", fontsize=11, labelloc=t,
         labeljust=l, bgcolor=white]
  node [shape=box, style=filled, fontname="DejaVu Sans", fontsize=10, height=0.3, margin="0.1,0.05"]
  edge [arrowsize=0.6]"""


def as_networkx(inspection: Steps) -> nx.DiGraph:
    """Nodes by id with the fields of `Node`, edges with their kind; the graph has the model."""
    graph = nx.DiGraph(model=inspection.model)
    for node in inspection.nodes:
        graph.add_node(node.id, **{k: v for k, v in asdict(node).items() if k != "id"})
    graph.add_edges_from((e.source, e.target, {"kind": e.kind}) for e in inspection.edges)
    return graph


def as_dot(inspection: Steps, rows: Sequence[Unit], title: str) -> str:
    """A digraph: the forward pass downwards, in clusters by block; the rest of a row beside it.

    The forward pass alone says what is above what; the inverse runs upwards beside it.
    """
    parts = parts_of(inspection, rows)
    links = links_of(parts, inspection.edges)
    lines = [f"digraph {_quoted(inspection.model or 'program')} {{", STYLE,
             f"  label={_quoted(title)}", *_clusters(rows, parts)]  # fmt: skip
    lines += [_box(part) for part in parts if part.column != "forward"]
    lines += [line for at in range(len(rows)) for line in _beside(parts, at)]
    lines += [line for column in COLUMNS[1:] for line in _below(parts, column)]
    lines += [_line(*link) for link in links]
    return "\n".join([*lines, "}"]) + "\n"


def _clusters(rows: Sequence[Unit], parts: Sequence[Part]) -> Iterator[str]:
    """The boxes of the forward pass, each in the opened blocks around it."""
    found = {rows[part.row].id: part for part in parts if part.column == "forward"}
    for row in rows:
        names = row.block.split(".") if row.block else []
        around = [".".join(names[: depth + 1]) for depth in range(len(names))]
        heads = [f"subgraph {_quoted(f'cluster_{name}')} {{ label={_quoted(name)}; color=gray60; "
                 for name in around]  # fmt: skip
        yield "".join(heads) + _box(found[row.id]) + " }" * len(around)


def _beside(parts: Sequence[Part], at: int) -> Iterator[str]:
    """What stands in one row, from left to right by column."""
    row = sorted((p for p in parts if p.row == at), key=lambda p: COLUMNS.index(p.column))
    if len(row) > 1:
        yield f"  {{ rank=same; {' -> '.join(_quoted(p.key) for p in row)} [style=invis] }}"


def _below(parts: Sequence[Part], column: Kind) -> Iterator[str]:
    """What keeps a column upright: lines that aren't seen."""
    first: dict[int, Part] = {}
    for part in parts:
        if part.column == column:
            first.setdefault(part.row, part)
    for above, below in pairwise(sorted(first)):
        ends = f"{_quoted(first[above].key)} -> {_quoted(first[below].key)}"
        yield f"  {ends} [style=invis, weight=20]"


def _box(part: Part) -> str:
    border, inside = COLOURS[part.column]
    label, more = _quoted("\n".join(part.lines)), _quoted(part.title)
    return (f'  {_quoted(part.key)} [label={label}, color="{border}", fillcolor="{inside}", '
            f"group={part.column}, tooltip={more}]")  # fmt: skip


def _line(source: Part, target: Part, kind: str) -> str:
    loose = "" if kind == "forward" else ", constraint=false"
    style = ", style=dashed" if kind == "capture" else ""
    ends = f"{_quoted(source.key)} -> {_quoted(target.key)}"
    return f'  {ends} [color="{COLOURS[kind][0]}"{style}{loose}]'


def _quoted(text: str) -> str:
    """A DOT string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
