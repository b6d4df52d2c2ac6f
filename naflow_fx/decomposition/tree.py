"""Tree: a decision and the channels that support it, as data and text, and what it cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import networkx as nx
from torch import Tensor

from naflow_fx.decomposition.grow import ROOT, share


@dataclass(frozen=True)
class Cost:
    """Work in units of one forward pass of one image; a full backward pass to it costs one, too.

    Attributes:
        forward: forward passes: 1.
        backward: backward passes, from the multiplications that ran: each row goes back from one
            layer to the next only.
        rows: nodes that were decomposed, each a row of a batch.
        batches: calls of the importance programs.
    """

    forward: float
    backward: float
    rows: int
    batches: int

    @property
    def passes(self) -> float:
        """Forward and backward passes together."""
        return self.forward + self.backward

    def __str__(self) -> str:
        passes = f"{self.forward:g} forward pass and {self.backward:.3g} backward passes"
        led = f"{self.rows} nodes led back to the next layer, in {self.batches} batches"
        return f"{passes}: {led}"


@dataclass(frozen=True, eq=False)
class Tree:
    """A decision and the channels that support it.

    Attributes:
        tree: a `networkx.DiGraph` from each node to its children.  Nodes are called "root", "1",
            "2", "1.1", ...: the first child of the first child of the root.  Each has ``layer``,
            ``channel`` (None: the root), ``evidence`` (signed, in the score's units), ``share``
            (of the parent's evidence; 1 for the root, 0 where the parent's is 0), ``map`` [H, W]
            at the layer's resolution, ``peak`` (row, column of the channel's largest activation
            in that grid), and, unless it is a leaf, ``remainder``, ``bias`` and ``constants``
            (operator -> its part of the bias).
        name: what the decision is called.
        target: the class, None where the score is a callable.
        layers: call sites, from the score down.
        cost: what it took.
        image: [C, H, W], as the model took it.
    """

    tree: nx.DiGraph
    name: str
    target: int | None
    layers: tuple[str, ...]
    cost: Cost
    image: Tensor

    @property
    def score(self) -> float:
        """The evidence of the root."""
        return float(self.tree.nodes[ROOT]["evidence"])

    def title(self, node: str) -> str:
        """What a node is called: "layer4.1.relu_1 [12]"; the decision's name for the root."""
        facts = self.tree.nodes[node]
        return self.name if facts["channel"] is None else f"{facts['layer']} [{facts['channel']}]"

    def __str__(self) -> str:
        """The tree as indented text, all levels."""
        return self.text()

    def text(self, levels: int | None = None) -> str:
        """The tree as indented text, this many levels below the decision; None: all."""
        lines = [f"{self.name}  {self.score:.4g}"]
        self._write(ROOT, "", lines, len(self.layers) if levels is None else levels)
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Decomposition({self.name!r}, {len(self.tree)} nodes, layers={list(self.layers)})"

    def _write(self, node: str, indent: str, lines: list[str], levels: int) -> None:
        if not levels:
            return
        facts, children = self.tree.nodes[node], list(self.tree.successors(node))
        rows = [(self.title(c), self.tree.nodes[c]["evidence"], c) for c in children]
        if "bias" in facts:
            rows += [("remainder", facts["remainder"], ""), ("bias", facts["bias"], "")]
        for i, (title, value, child) in enumerate(rows, 1):
            last = i == len(rows)
            part = share(value, facts["evidence"])
            lines.append(f"{indent}{'└' if last else '├'}─ {title}  {value:.4g}  ({part:.0%})")
            if child:
                self._write(child, indent + ("   " if last else "│  "), lines, levels - 1)

    def to_json(self) -> dict[str, Any]:
        """As plain data: the root with its children inside; maps as nested lists."""
        facts = {"name": self.name, "target": self.target, "layers": list(self.layers)}
        cost = {**asdict(self.cost), "passes": self.cost.passes}
        return {**facts, "cost": cost, "tree": self._plain(ROOT)}

    def _plain(self, node: str) -> dict[str, Any]:
        facts = dict(self.tree.nodes[node])
        facts |= {"map": facts["map"].tolist(), "peak": list(facts["peak"])}
        children = [self._plain(child) for child in self.tree.successors(node)]
        return {"node": node, **facts, "children": children}
