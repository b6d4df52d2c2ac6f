"""The inspection as DOT (boxes and links), and drawn by Graphviz."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

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
    nodes: list[Node]
    lines: list[str]


def parts_of(inspection: Steps, rows: Sequence[Unit]) -> list[Part]:
    """The boxes of the given rows, inverse steps last.

    An inverse step stands in the first of the rows that it inverts, or, folded with others, in
    that of its block.
    """
    row_of = {node.name: i for i, row in enumerate(rows) for node in row.nodes}
    name_of = {node.id: node.name for node in inspection.nodes if node.kind == "forward"}
    groups: dict[tuple[int, Kind, str], list[Node]] = {}
    for node in inspection.nodes:
        names = [name_of.get(id, "") for id in node.operators] or [node.name]
        at = sorted(row_of[name] for name in names if name in row_of)
        if at:
            folded = rows[at[0]].folded and at[0] == at[-1] and node.operators
            alone = node.kind == "inverse" and not folded
            groups.setdefault((at[0], node.kind, node.id if alone else ""), []).append(node)
    found = [
        Part(
            f"{kind}:{step or rows[at].id}",
            kind,
            at,
            nodes,
            _step_lines(nodes[0]) if step else _lines(kind, rows[at], nodes),
        )
        for (at, kind, step), nodes in groups.items()
    ]
    return sorted(found, key=lambda part: len(rows) if part.column == "inverse" else part.row)


def links_of(parts: Sequence[Part], edges: Sequence[Edge]) -> dict[tuple[str, str], Link]:
    """Who reads whom, between boxes by their keys, each once."""
    key_of = {node.id: part.key for part in parts for node in part.nodes}
    found: dict[tuple[str, str], Link] = {}
    for edge in edges:
        source, target = key_of.get(edge.source), key_of.get(edge.target)
        if source and target and source != target:
            found.setdefault((source, target), edge.kind)
    return found


def _lines(kind: Kind, row: Unit, nodes: Sequence[Node]) -> list[str]:
    """What is said of a row's nodes of one kind."""
    shape = texts.shape_text(nodes[-1].shape)
    if kind == "forward":
        what = f"{len(nodes)} layers" if row.folded else nodes[-1].operator
        return [row.name if row.folded else _short(row.name, row.block), f"{what} · {shape}"]
    if kind == "capture":
        held = texts.running(nodes)
        names = [texts.capture_name(h, row.nodes[0].id) for h in held]
        what = f"{len(held)} capture{'s' * (len(held) > 1)}" if row.folded else ", ".join(names)
        return [what, texts.size_text(sum(h.bytes_per_image for h in held))]
    if kind == "importance":
        return [f"{len(nodes)} Λ" if row.folded else "Λ"]
    if kind == "map":
        return [f"{len(nodes)} maps"] if row.folded else ["map", shape]
    return _summary(nodes)


def _step_lines(node: Node) -> list[str]:
    """What is said of an inverse step."""
    way, equation = texts.way(node), _equation(node)
    together = f"{way} · {equation}"
    lines = [together] if len(together) <= ROOM else [way, equation]
    lines = [*lines, f"Z of {node.name}"] if node.operators else ["Z = x, the activation"]
    numbers = [] if node.sigma_max is None else [f"σ {node.sigma_max:.2g}"]
    if node.residual is not None and node.operators:
        numbers.append(f"residual {texts.number_text(node.residual, 2)}")
    return [*lines, " · ".join(numbers)] if numbers else lines


def _summary(nodes: Sequence[Node]) -> list[str]:
    """How many steps of which kind, and how far they can be trusted."""
    whole = ", ".join(way.replace(" ", SOLID) for way in texts.ways(nodes))
    lines = [line.replace(SOLID, " ") for line in textwrap.wrap(whole, ROOM)]
    residual = texts.mean(node.residual for node in nodes if node.operators)
    if residual is not None:
        lines.append(f"residual {texts.number_text(residual, 2)} (mean)")
    return lines


def _equation(node: Node) -> str:
    """The paper's equation alone, where there is one, else the first texts."""
    found = re.search(r"Eqs?\. [\d-]+", node.equation)
    return found[0] if found else node.equation.removeprefix("damped ").split(",")[0]


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


#: Of a box's border and lines, and of its inside.
COLOURS = {
    "forward": ("#0072b2", "#eaf4fa"),
    "capture": ("#b37700", "#fdf5e3"),
    "importance": ("#00805c", "#e6f5f0"),
    "inverse": ("#c05000", "#fdeee4"),
    "map": ("#8a4f7d", "#f7ecf4"),
}
STYLE = """\
  graph [newrank=true, nodesep=0.15, ranksep=0.3, fontname="DejaVu Sans", fontsize=11, labelloc=t,
         labeljust=l, bgcolor=white]
  node [shape=box, style=filled, fontname="DejaVu Sans", fontsize=10, height=0.3, margin="0.1,0.05"]
  edge [arrowsize=0.6]"""


def as_dot(inspection: Steps, rows: Sequence[Unit], title: str) -> str:
    """A digraph: the forward pass downwards, in clusters by block; the rest of a row beside it.

    The forward pass alone says what is above what; the inverse runs upwards beside it.
    """
    parts = parts_of(inspection, rows)
    lines = [f"digraph {_quoted(inspection.model or 'program')} {{", STYLE,
             f"  label={_quoted(title)}", *_clusters(rows, parts)]  # fmt: skip
    lines += [_box(part) for part in parts if part.column != "forward"]
    lines += _beside(parts)
    lines += [line for column in COLUMNS[1:] for line in _below(parts, column)]
    lines += [_line(*link) for link in links_of(parts, inspection.edges).items()]
    return "\n".join([*lines, "}"]) + "\n"


def _clusters(rows: Sequence[Unit], parts: Sequence[Part]) -> Iterator[str]:
    """The boxes of the forward pass, each in the opened blocks around it."""
    forward = (part for part in parts if part.column == "forward")
    for row, part in zip(rows, forward, strict=True):
        heads = [f"subgraph {_quoted(f'cluster_{name}')} {{ label={_quoted(name)}; color=gray60; "
                 for name in around(row.block)]  # fmt: skip
        yield "".join(heads) + _box(part) + " }" * len(heads)


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
    """A box; its tooltip tells all there is to say of a single node, else a line per node."""
    border, inside = COLOURS[part.column]
    several = [f"{node.name}: {_heading(node)}" for node in part.nodes]
    told = several if len(several) > 1 else _details(part.nodes[0])
    label, more = (_quoted("\n".join(lines)) for lines in (part.lines, told))
    return (f'  {_quoted(part.key)} [label={label}, color="{border}", fillcolor="{inside}", '
            f"group={part.column}, tooltip={more}]")  # fmt: skip


def _line(ends: tuple[str, str], kind: Link) -> str:
    loose = "" if kind == "forward" else ", constraint=false"
    style = ", style=dashed" if kind == "capture" else ""
    return f'  {" -> ".join(map(_quoted, ends))} [color="{COLOURS[kind][0]}"{style}{loose}]'


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
            "the picture is drawn by Graphviz, whose program dot is not on the "
            "PATH; install the package graphviz (apt-get install graphviz, brew "
            "install graphviz, conda install graphviz), or write .html, which "
            "needs nothing"
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
