"""inspect: the generated program as a table, one row per call site."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from torch import fx
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.errors import table


@dataclass(frozen=True)
class Row:
    """One call site: its forward node and what was generated for it."""

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
class Inspection:
    """The rows of an explainer's program; printing it shows the table."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        """Aligned columns, a header, a row per call site in forward order."""
        names = [field.name for field in fields(Row)]
        body = [[str(getattr(row, name)) for name in names] for row in self.rows]
        return table([names, ["-" * len(name) for name in names], *body], indent="")

    def __len__(self) -> int:
        return len(self.rows)


def inspect_graph(gm: fx.GraphModule) -> Inspection:
    """The table of a generated program: forward -> captures -> inverse -> importance."""
    result: Any = next(n for n in reversed(gm.graph.nodes) if n.op == "output").args[0]
    by_site = {n.meta[keys.SITE]: n for n in gm.graph.nodes
               if keys.LABELS in n.meta and keys.SITE in n.meta}  # fmt: skip
    return Inspection(tuple(_row(by_site[site]) for site in result["maps"]))


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
