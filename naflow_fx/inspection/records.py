"""What an inspection holds: blocks, nodes, edges, and one row per call site."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from typing_extensions import Self

Kind = Literal["forward", "capture", "importance", "inverse", "map"]
Link = Literal["forward", "capture", "importance", "inverse"]
VERSION = 1  # of `Steps.to_dict`; grows when the meaning of an entry changes


def block_of(name: str) -> str:
    """The block of a name, "layer1.0" of "layer1.0.conv1"; the model itself is ""."""
    return name.rpartition(".")[0]


def around(block: str) -> list[str]:
    """The block and those around it, the outermost first, without the model itself."""
    return [*around(block_of(block)), block] if block else []


@dataclass(frozen=True)
class Block:
    """A part of the model by its name; the model itself is "", whose parent is None.

    Attributes:
        id: "layer1.0".
        parent: "layer1".
        region: whether a fork and a merge are inverted as one in it.
    """

    id: str
    parent: str | None
    region: bool


@dataclass(frozen=True)
class Captured:
    """A tensor that the forward pass leaves for the inverse or the importance.

    Attributes:
        name: the node that holds it.
        bytes_per_image: 0 where it is a constant of the program, shared by all images.
        dtype: such as "bool".
        shape: -1 in the batch dimension.
        constant: whether it was made at compile time.
    """

    name: str
    bytes_per_image: int
    dtype: str
    shape: tuple[int, ...]
    constant: bool


@dataclass(frozen=True)
class Node:
    """One step of the program: an operator, a capture, Lambda, an inverse step or a map.

    Attributes:
        id: of the generated node, unique; of a Z that is the forward activation, with ".z".
        kind: see `Kind`.
        site: the call site that it belongs to (of an inverse step: whose Z it makes); None where
            that is no call site (the classifier).
        name: what to show: the site, or the operator's name in the model.
        block: id of its block; an inverse step is where the operators are that it inverts.
        operator: of the rule table, "map", or what is inverted.
        equation: of the paper, or what stands for it.
        shape: of the tensor it makes, -1 in the batch dimension.
        how: of an inverse step: "exact", "least squares", "damped diagonal", "propagated",
            "remainder"; "start" and "control": Z is the forward activation.
        operators: of an inverse step: the forward nodes (ids) that it inverts as one.
        region: "kind entry -> exit" of the innermost region around an inverse step.
        captures: tensors of the forward pass that it leaves (forward, capture) or reads.
        steps, damping: of the solver, where it has a say.
        sigma_max: the largest singular value of what is inverted, where damping has a say; of an
            operator that depends on the image (a region) that of the last run, the mean over its
            images, None without one.
        residual, norm_ratio: how far Z can be trusted in the last run, the mean over its images.
        doc: what it does, in a line.
    """

    id: str
    kind: Kind
    site: str | None
    name: str
    block: str
    operator: str
    equation: str = ""
    shape: tuple[int, ...] = ()
    how: str = ""
    operators: tuple[str, ...] = ()
    region: str = ""
    captures: tuple[Captured, ...] = ()
    steps: int | None = None
    damping: float | None = None
    sigma_max: float | None = None
    residual: float | None = None
    norm_ratio: float | None = None
    doc: str = ""

    @property
    def bytes_per_image(self) -> int:
        """What all captures of one image take."""
        return sum(captured.bytes_per_image for captured in self.captures)


@dataclass(frozen=True)
class Edge:
    """Who reads whom, by ids; `kind` is what flows: an activation, a capture, Lambda or Z."""

    source: str
    target: str
    kind: Link


@dataclass(frozen=True)
class Row:
    """One call site: its forward node and what was generated for it, as text."""

    layer: str
    operator: str
    shape: str
    captures: str
    inverse: str
    kind: str
    equation: str
    importance: str
    region: str


@dataclass(frozen=True)
class Steps:
    """The program of an explainer: blocks, nodes and edges, and a row per call site.

    Attributes:
        model: its name, or "".
        blocks: of the model, in forward order, the model itself ("") first.
        nodes: forward, captures, importance, inverse, maps.
        edges: who reads whom.
        rows: one per call site, as text.
    """

    model: str
    blocks: tuple[Block, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    rows: tuple[Row, ...]

    def inspect(self) -> Self:
        """Itself: it serves wherever an explainer does."""
        return self

    def __len__(self) -> int:
        """Number of call sites."""
        return len(self.rows)

    @property
    def headline(self) -> str:
        """Model, number of call sites, and how its least squares are solved."""
        return f"{self.model or 'program'}: {len(self)} call sites{self.solved}"

    @property
    def solved(self) -> str:
        """How its least squares are solved, behind a semicolon; "" where there are none."""
        solved = [node for node in self.nodes if node.steps is not None]
        if not solved:
            return ""
        steps = " or ".join(str(steps) for steps in sorted({node.steps or 0 for node in solved}))
        return f"; least squares in {steps} steps, damping {solved[0].damping:g}"

    def to_dict(self) -> dict[str, Any]:
        """As plain data: ``{"version", "model", "blocks", "nodes", "edges"}``.

        The entries have the fields of `Block`, `Node` and `Edge`; what doesn't apply is None or
        empty.  Sizes of -1 are the batch.
        """
        parts: dict[str, Any] = {"blocks": self.blocks, "nodes": self.nodes, "edges": self.edges}
        plain = {name: [_plain(asdict(item)) for item in part] for name, part in parts.items()}
        return {"version": VERSION, "model": self.model, **plain}


def _plain(value: Any) -> Any:
    """Numbers that JSON has no word for are None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
