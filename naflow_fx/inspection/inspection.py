"""Inspection: what `explainer.inspect()` gives; print it, or ask for another form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from naflow_fx.files import write
from naflow_fx.inspection.fold import cut, fold
from naflow_fx.inspection.graphs import DRAWN, as_dot, draw, kind_of
from naflow_fx.inspection.records import Steps
from naflow_fx.inspection.texts import as_text

if TYPE_CHECKING:
    import networkx as nx

Globs: TypeAlias = Sequence[str] | str | None


class Inspection(Steps):
    """The program of an explainer: the fields of `Steps`, as text, data, pictures and a page."""

    def __str__(self) -> str:
        """Headline, a table of blocks, a table of call sites, in forward order."""
        return as_text(self)

    def to_networkx(self) -> nx.DiGraph:
        """A graph: nodes by id with the fields of `Node`, edges with their ``kind``."""
        import networkx as nx

        graph = nx.DiGraph(model=self.model)
        for node in self.nodes:
            graph.add_node(node.id, **{k: v for k, v in asdict(node).items() if k != "id"})
        graph.add_edges_from((e.source, e.target, {"kind": e.kind}) for e in self.edges)
        return graph

    def to_dot(self, expand: Globs = "*", only: str | None = None) -> str:
        """DOT text for Graphviz: a box per node, or per folded block.

        Args:
            expand: globs of blocks to draw node by node, such as "layer1.*", the others folded
                into one box each; None: as many levels of blocks as leave the picture readable.
            only: a block to draw alone, with what it reads and who reads it.

        Raises:
            GraphError: a glob that no block matches, or no such block.
        """
        if only is None:
            return as_dot(self, fold(self, expand), self.headline)
        rows = fold(self, [only, f"{only}.*"] if expand in (None, "*") else expand)
        return as_dot(self, cut(self, rows, only), f"{only} of {self.model}{self.solved}")

    def to_svg(self, expand: Globs = None, only: str | None = None) -> str:
        """The picture that Graphviz draws, as SVG text; a box tells more under the pointer.

        Forward runs down the left side, the inverse up beside it; what is captured links the two.

        Args:
            expand: as of `to_dot`; None: as many levels as leave the picture readable.
            only: as of `to_dot`.

        Raises:
            GraphError: a glob that no block matches, or no such block.
            ArtefactError: Graphviz is missing.
        """
        return draw(self.to_dot(expand, only), "svg").decode()

    def save(self, path: str | Path, expand: Globs = None, only: str | None = None) -> Path:
        """Write a file in the format that its name ends with, and return its path.

        Args:
            path: ``.svg``, ``.png`` or ``.pdf`` (drawn by Graphviz), ``.dot``, ``.json``,
                ``.txt`` (the tables), or ``.html`` (the page).
            expand: as of `to_dot`, of files that Graphviz draws or reads.
            only: as of `to_dot`.

        Raises:
            ArtefactError: another ending; Graphviz is missing.
            GraphError: a glob that no block matches, or no such block.
        """
        return write(Path(path), self.content(kind_of(Path(path)), expand, only))

    def content(self, kind: str, expand: Globs, only: str | None) -> bytes:
        """What a file of that kind holds."""
        if kind in DRAWN:
            return draw(self.to_dot(expand, only), kind)
        if kind == "dot":
            return self.to_dot(expand or "*", only).encode()
        if kind == "html":
            return self._page().encode()
        return f"{self.to_json(indent=1) if kind == 'json' else self}\n".encode()

    def _page(self) -> str:
        """The page of the inverse graph alone."""
        from naflow_fx.view.page.page import page_of
        from naflow_fx.view.page.record import ReportEntry, make_report

        entry = ReportEntry([], [], self.model or "model", graph=self)
        return page_of(make_report([entry], self.model or "Inverse graph", "inferno", 0.5))

    def to_json(self, indent: int | None = None) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)
