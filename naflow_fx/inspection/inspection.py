"""Inspection: what `explainer.inspect()` gives; print it, or ask for another form."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from naflow_fx.errors import table
from naflow_fx.inspection.records import Block, Edge, Node, Row

VERSION = 1  # of the JSON; grows when the meaning of an entry changes


@dataclass(frozen=True)
class Inspection:
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

    def __len__(self) -> int:
        """Number of call sites."""
        return len(self.rows)

    def to_dict(self) -> dict[str, Any]:
        """As plain data: ``{"version", "model", "blocks", "nodes", "edges"}``.

        The entries have the fields of `Block`, `Node` and `Edge`; what doesn't apply is None or
        empty.  Sizes of -1 are the batch.
        """
        parts: dict[str, Any] = {"blocks": self.blocks, "nodes": self.nodes, "edges": self.edges}
        plain = {name: [_plain(asdict(item)) for item in part] for name, part in parts.items()}
        return {"version": VERSION, "model": self.model, **plain}

    def __str__(self) -> str:
        """Aligned columns, a header, a row per call site in forward order."""
        names = [field.name for field in fields(Row)]
        body = [[str(getattr(row, name)) for name in names] for row in self.rows]
        return table([names, ["-" * len(name) for name in names], *body], indent="")

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """Numbers that JSON has no word for are None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
