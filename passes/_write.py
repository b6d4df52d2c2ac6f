"""Writer: how passes add to a graph what serves a forward node, named after it and marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

from naflow_fx.passes import _graph


class Writer:
    """Inserts the nodes of one part of the program, at the graph's insertion point.

    Args:
        graph: is extended.
        part: of the program, as `inspect` calls it.
        names: the nodes that captures and metadata name; None: those of `graph`.
    """

    def __init__(self, graph: fx.Graph, part: str, names: dict[str, fx.Node] | None = None) -> None:
        self.graph, self.part = graph, part
        self.names = _graph.names(graph) if names is None else names

    def call(
        self,
        source: fx.Node,
        target: Any,
        args: tuple[Any, ...],
        word: str,
        kwargs: Mapping[str, Any] | None = None,
        of: fx.Node | None = None,
    ) -> fx.Node:
        """A function's call, or that of the module at a path, which serves `source`.

        It is called `source_word`, or after `of` instead.
        """
        kind = "call_module" if isinstance(target, str) else "call_function"
        name = f"{(of or source).name}_{word}"
        made = self.graph.create_node(kind, target, args, dict(kwargs or {}), name=name)
        made.meta |= _graph.marks(self.part, source)
        return made

    def ask(
        self,
        node: fx.Node,
        function: Any,
        leading: tuple[Any, ...],
        word: str = "",
        of: fx.Node | None = None,
        **more: Any,
    ) -> fx.Node:
        """A rule's function of `node`, which may ask for `more`, too; `word`: by default its name.

        `leading` is what it is given before that.
        """
        assert function is not None
        asked = _graph.asked(function, self.offer(node) | more, len(leading))
        return self.call(node, function, leading, word or function.__name__, asked, of)

    def offer(self, node: fx.Node) -> _graph.State:
        """All that a node's rule may ask for."""
        return _graph.state(node, self.names)

    def known(self, node: fx.Node, key: str) -> fx.Node | None:
        """The node that an earlier pass names under a key of `node`; None: there is none."""
        return self.names.get(node.meta.get(key, ""))
