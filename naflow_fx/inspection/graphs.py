"""The inspection as a networkx graph, as DOT (boxes and links), and drawn by Graphviz."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, pairwise
from pathlib import Path

import networkx as nx

from naflow_fx.errors import ArtefactError, first_line
from naflow_fx.inspection import texts
from naflow_fx.inspection.fold import Unit
from naflow_fx.inspection.records import Edge, Kind, Link, Node, Steps, around

DRAWN = ("svg", "png", "pdf")
FORMATS = (*DRAWN, "dot", "json", "html", "txt")
ROOM = 28  # letters in a line of an inverse step
SOLID = "\N{NO-BREAK SPACE}"
COLUMNS: tuple[Kind, ...] = ("forward", "capture", "inverse", "map", "importance")


@dataclass(frozen=True)
class Part:
    """A box: its column, its row, the nodes that it stands for, its text."""

    key: str
    column: Kind
    row: int
    nodes: tuple[Node, ...]
    lines: tuple[str, ...]

    @property
    def title(self) -> str:
        """What a tooltip tells: all there is to say of a single node, else a line per node."""
        if len(self.nodes) == 1:
            return "\n".join(_details(self.nodes[0]))
        return "\n".join(f"{node.name}: {_heading(node)}" for node in self.nodes)


def parts_of(inspection: Steps, rows: Sequence[Unit]) -> list[Part]:
    """The boxes of the given rows.

    An inverse step stands in the first of the rows that it inverts, or, folded with others, in
    that of its block.
    """
    row_of = {node.id: i for i, row in enumerate(rows) for node in row.nodes}
    found = [part for i, row in enumerate(rows) for part in _row_parts(inspection, row, i)]
    groups: dict[tuple[int, str], list[Node]] = {}
    for node in inspection.nodes:
        if node.kind == "inverse":
            at = _rows_of(node, row_of)
            if at:
                whole = rows[at[0]].folded and at[0] == at[-1] and bool(node.operators)
                groups.setdefault((at[0], "" if whole else node.id), []).append(node)
    return found + [_inverse(rows, *key, tuple(nodes)) for key, nodes in groups.items()]


def _rows_of(node: Node, row_of: Mapping[str, int]) -> list[int]:
    """The rows of an inverse step: of what it inverts, or of whose activation is Z."""
    names = node.operators or (node.id.removesuffix(".z"),)
    return sorted(row_of[name] for name in names if name in row_of)


def links_of(parts: Sequence[Part], edges: Sequence[Edge]) -> list[tuple[Part, Part, Link]]:
    """Who reads whom, between boxes, each once."""
    part_of = {node.id: part for part in parts for node in part.nodes}
    found: dict[tuple[str, str], tuple[Part, Part, Link]] = {}
    for edge in edges:
        source, target = part_of.get(edge.source), part_of.get(edge.target)
        if source is not None and target is not None and source is not target:
            found.setdefault((source.key, target.key), (source, target, edge.kind))
    return list(found.values())


def _row_parts(inspection: Steps, row: Unit, at: int) -> Iterator[Part]:
    """Forward, captures, importance and map of one row."""
    names = {node.name for node in row.nodes}
    label = row.name if row.folded else _short(row.name, row.block)
    last = row.nodes[-1]
    what = f"{len(row.nodes)} layers" if row.folded else last.operator
    lines: tuple[str, ...] = (label, f"{what} · {texts.shape_text(last.shape)}")
    yield Part(f"forward:{row.id}", "forward", at, row.nodes, lines)
    columns: tuple[Kind, ...] = ("capture", "importance", "map")
    for column in columns:
        nodes = tuple(n for n in inspection.nodes if n.kind == column and n.name in names)
        if nodes:
            lines = _side_lines(column, row, nodes)
            yield Part(f"{column}:{row.id}", column, at, nodes, lines)


def _side_lines(column: str, row: Unit, nodes: tuple[Node, ...]) -> tuple[str, ...]:
    if column == "capture":
        held = texts.running(nodes)
        names = [texts.capture_name(h, row.nodes[0].id) for h in held]
        what = f"{len(held)} capture{'s' * (len(held) > 1)}" if row.folded else ", ".join(names)
        return what, texts.size_text(sum(h.bytes_per_image for h in held))
    if column == "importance":
        return (f"{len(nodes)} Λ" if row.folded else "Λ",)
    return (f"{len(nodes)} maps",) if row.folded else ("map", texts.shape_text(nodes[0].shape))


def _inverse(rows: Sequence[Unit], at: int, id: str, nodes: tuple[Node, ...]) -> Part:
    """An inverse step, or all those of a folded block."""
    if not id:
        return Part(f"inverse:{rows[at].id}", "inverse", at, nodes, _summary(nodes))
    node = nodes[0]
    way, equation = texts.way(node), _equation(node)
    together = f"{way} · {equation}"
    lines = [together] if len(together) <= ROOM else [way, equation]
    lines = [*lines, f"Z of {node.name}"] if node.operators else ["Z = x, the activation"]
    return Part(f"inverse:{node.id}", "inverse", at, nodes, (*lines, *_numbers(node)))


def _summary(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    """How many steps of which kind, and how far they can be trusted."""
    whole = ", ".join(texts.ways(nodes)).replace(" ", SOLID).replace(f",{SOLID}", ", ")
    lines = [line.replace(SOLID, " ") for line in textwrap.wrap(whole, ROOM)]
    residual = texts.mean(node.residual for node in nodes if node.operators)
    if residual is not None:
        lines.append(f"residual {texts.number_text(residual, 2)} (mean)")
    return tuple(lines)


def _equation(node: Node) -> str:
    """The paper's equation alone, where there is one, else the first texts."""
    found = re.search(r"Eqs?\. [\d-]+", node.equation)
    return found[0] if found else node.equation.removeprefix("damped ").split(",")[0]


def _numbers(node: Node) -> list[str]:
    """sigma_max, residual and norm ratio, where they are known."""
    found = [f"σ {node.sigma_max:.2g}"] if node.sigma_max is not None else []
    if node.residual is not None and node.operators:
        found.append(f"residual {texts.number_text(node.residual, 2)}")
    return [" · ".join(found)] if found else []


def _short(name: str, block: str) -> str:
    """A name without the block around it; whole where a number is left."""
    rest = name.removeprefix(f"{block}.") if block else name
    return name if rest.isdigit() else rest


def _heading(node: Node) -> str:
    """Kind and way of a node in a few texts."""
    what = node.how or (node.operator if node.kind == "forward" else node.kind)
    return f"{what}  {node.equation}".rstrip()


def _details(node: Node) -> list[str]:
    """All there is to tell of a node, a line each."""
    lines = [
        f"{node.name}: {_heading(node)}",
        node.doc,
        f"makes {texts.shape_text(node.shape)}",
        f"inverts {', '.join(node.operators)}" if node.operators else "",
        f"in the region: {node.region}" if node.region else "",
        "" if node.steps is None else f"{node.steps} steps",
    ]
    for name in ("damping", "sigma_max", "residual", "norm_ratio"):
        if getattr(node, name) is not None:
            lines.append(f"{name} {texts.number_text(getattr(node, name))}")
    for held in node.captures:
        what = f"{held.name}: {held.dtype} {texts.shape_text(held.shape)}"
        size = f"{texts.size_text(held.bytes_per_image)} an image"
        lines.append(f"constant {what}" if held.constant else f"captured {what}, {size}")
    return [line for line in lines if line]


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
    lines += _beside(parts)
    lines += [line for column in COLUMNS[1:] for line in _below(parts, column)]
    lines += [_line(*link) for link in links]
    return "\n".join([*lines, "}"]) + "\n"


def _clusters(rows: Sequence[Unit], parts: Sequence[Part]) -> Iterator[str]:
    """The boxes of the forward pass, each in the opened blocks around it."""
    found = {rows[part.row].id: part for part in parts if part.column == "forward"}
    for row in rows:
        heads = [f"subgraph {_quoted(f'cluster_{name}')} {{ label={_quoted(name)}; color=gray60; "
                 for name in around(row.block)]  # fmt: skip
        yield "".join(heads) + _box(found[row.id]) + " }" * len(heads)


def _beside(parts: Sequence[Part]) -> Iterator[str]:
    """What stands in one row, from left to right by column."""
    ordered = sorted(parts, key=lambda part: (part.row, COLUMNS.index(part.column)))
    for _, row in groupby(ordered, lambda part: part.row):
        keys = [_quoted(part.key) for part in row]
        if len(keys) > 1:
            yield f"  {{ rank=same; {' -> '.join(keys)} [style=invis] }}"


def _below(parts: Sequence[Part], column: Kind) -> Iterator[str]:
    """What keeps a column upright: lines that aren't seen."""
    first = {part.row: _quoted(part.key) for part in reversed(parts) if part.column == column}
    for above, below in pairwise(sorted(first)):
        yield f"  {first[above]} -> {first[below]} [style=invis, weight=20]"


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
    """A DOT string, which JSON's is."""
    return json.dumps(text, ensure_ascii=False)


def draw(text: str, kind: str) -> bytes:
    """DOT text as a picture.

    Args:
        text: what is drawn.
        kind: "svg", "png" or "pdf".

    Raises:
        ArtefactError: Graphviz is missing, or failed.
    """
    program = shutil.which("dot")
    if program is None:
        raise ArtefactError(
            "the picture is drawn by Graphviz, whose program dot is not on the PATH; install the "
            "package graphviz (apt-get install graphviz, brew install graphviz, conda install "
            "graphviz), or write .html, which needs nothing"
        )
    sharp = ["-Gdpi=144"] if kind == "png" else []
    made = subprocess.run([program, f"-T{kind}", *sharp], input=text.encode(), capture_output=True)
    if made.returncode:
        reason = first_line(RuntimeError(made.stderr.decode(errors="replace")))
        raise ArtefactError(f"Graphviz could not draw the graph: {reason}")
    return made.stdout


def kind_of(path: Path) -> str:
    """The format that a file's name asks for.

    Raises:
        ArtefactError: none of ours.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        known = ", ".join(f".{name}" for name in FORMATS)
        raise ArtefactError(f"{path}: the name must end in one of {known}")
    return kind
