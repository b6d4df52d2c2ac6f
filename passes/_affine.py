"""The captured affine map of a part of the graph, written out in the rules' functions.

With everything captured, a layer, a chain or a whole region is ``y = A x + c``.  Here A, A^T and
c become graphs of `linear`, `transpose` and `shift` calls.
"""

from __future__ import annotations

import operator
from collections.abc import Container, Mapping, Sequence
from typing import Any

from torch import fx
from torch.fx.node import map_arg

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.passes._batch import merges_batch
from naflow_fx.passes._kernels import Kernels, has_constant_kernel
from naflow_fx.passes._reverse import added, walk_back
from naflow_fx.passes._write import Writer
from naflow_fx.rules._shapes import as_activation
from naflow_fx.rules.contract import Function


class AffineMap:
    """A, A^T and c of the nodes from `entry` (excluded) to the last of `nodes`, as GraphModules.

    ``linear(v, *needs)``, ``transpose(w, *needs)``, ``shift(z, *needs)`` (z: any output), where
    `needs` are captures and constants of the outer graph; `shift` is None where c = 0.  `kernels`
    tells by index which of them are kept kernels.
    """

    def __init__(self, nodes: Sequence[fx.Node], entry: fx.Node, kernels: Kernels) -> None:
        self.nodes, self.entry, self.exit = list(nodes), entry, nodes[-1]
        self.offers, self.merged = kernels.offers(self.nodes)
        self.needs = self._wanted()
        self.kernels = tuple(i for i, need in enumerate(self.needs) if need in kernels.made)
        self.linear = self._linear()
        self.transpose = self._transpose()
        self.shift = self._shift()

    def _wanted(self) -> list[fx.Node]:
        """All that the rules' functions ask for, each once."""
        found: dict[fx.Node, None] = {}
        for node in self.nodes:
            rule = _graph.rule(node)
            maps: list[Any] = [] if node in self.merged else [(rule.linear, 1), (rule.transpose, 1)]
            shifts = [(rule.shift, 0)] if _graph.has_shift(node) else []
            for function, skip in maps + shifts:
                asked = _graph.asked(function, self.offers[node], skip)
                found |= dict.fromkeys(_graph.uses(asked))
        return list(found)

    def _start(self, vector: str) -> tuple[AffineWriter, fx.Node]:
        """What writes into a graph of `vector` and what is needed, and the vector."""
        graph = fx.Graph()
        v = graph.placeholder(vector)
        places = {need: graph.placeholder(need.name) for need in self.needs}
        offers = {n: map_arg(x, lambda n: places.get(n, n)) for n, x in self.offers.items()}
        kept = set(filter(has_constant_kernel, self.nodes))
        return AffineWriter(graph, offers, merged=self.merged, kept=kept), v

    def _linear(self) -> fx.GraphModule:
        write, v = self._start("v")
        values = {self.entry: v}
        write.forward(self.nodes, values)
        return _finish(write.graph, values[self.exit], "Linear")

    def _shift(self) -> fx.GraphModule | None:
        write, z = self._start("z")
        values: dict[fx.Node, Any] = {self.entry: None}
        if any(merges_batch(node) for node in self.nodes):  # then c's rows are not z's
            shape = self.entry.meta[keys.SHAPE]
            values[self.entry] = write.graph.call_function(as_activation, (0.0, z, shape))
        write.forward(self.nodes, values, like=z)
        shift = values[self.exit]
        return None if shift is None else _finish(write.graph, shift, "Shift")

    def _transpose(self) -> fx.GraphModule:
        write, w = self._start("w")
        graph, call = write.graph, write.graph.call_function

        def back(node: fx.Node, w: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
            if node is self.entry:
                return []
            rule = _graph.rule(node)
            called = w if node in self.merged else write.multiplied(node, rule.transpose, w)
            return [
                (x, call(operator.getitem, (called, i)) if rule.variadic else called)
                for i, x in enumerate(_graph.sources(node))
            ]

        nodes = [self.entry, *self.nodes]
        totals = walk_back(nodes, {self.exit: w}, lambda _, parts: added(graph, parts), back)
        return _finish(graph, totals[self.entry], "Transpose")


class AffineWriter(Writer):
    """Writes the captured affine map of nodes.

    Args:
        graph: is extended.
        offers: what each node's rule may ask for.
        word: new nodes end in it; "": in the names of the rules' functions.
        merged: nodes whose scale is in the weight of the layer before them.
        kept: nodes whose kernels may have a dtype of their own.
    """

    def __init__(
        self,
        graph: fx.Graph,
        offers: Mapping[fx.Node, _graph.State],
        word: str = "",
        merged: Container[fx.Node] = (),
        kept: Container[fx.Node] = (),
    ) -> None:
        super().__init__(graph, "inverse", {})
        self.offers, self.word, self.merged, self.kept = offers, word, merged, kept

    def offer(self, node: fx.Node) -> _graph.State:
        """All that a node's rule may ask for."""
        return self.offers[node]

    def forward(
        self, nodes: Sequence[fx.Node], values: dict[fx.Node, Any], like: fx.Node | None = None
    ) -> None:
        """Writes A of `nodes`; `values` holds the start and the results.

        None stands for zero, so that nothing is computed from it.  With `like`, a tensor of the
        batch, c is added; where there is nothing to add it to, it is expanded to the whole
        activation (a merge needs it whole).
        """
        for node in nodes:
            if node in values:
                continue
            rule = _graph.rule(node)
            inputs = [values.get(source) for source in _graph.sources(node)]
            value = None
            if node in self.merged:
                value = inputs[0]
            elif any(v is not None for v in inputs):
                v = inputs if rule.variadic else inputs[0]
                value = self.multiplied(node, rule.linear, v)
            if like is not None and _graph.has_shift(node):
                value = self._shifted(node, value, like)
            values[node] = value

    def _shifted(self, node: fx.Node, value: fx.Node | None, like: fx.Node) -> fx.Node:
        """``value + c``."""
        shift = self.ask(node, _graph.rule(node).shift, (), self.word)
        if value is None:
            shape = node.meta[keys.SHAPE]
            return self.graph.call_function(as_activation, (shift, like, shape))
        name = f"{node.name}_{self.word or 'linear'}_shifted"
        return self.graph.create_node("call_function", operator.add, (value, shift), name=name)

    def multiplied(self, node: fx.Node, function: Function, v: Any) -> fx.Node:
        """``function(v, ...)``, A v or A^T v; in the dtype of a `kept` kernel, and back in v's."""
        if node not in self.kept:
            return self.ask(node, function, (v,), self.word)
        kernel = self.offer(node)[_graph.rule(node).kernel]
        rounded = self.graph.call_method("type_as", (v, kernel))
        product = self.ask(node, function, (rounded,), self.word)
        return self.graph.call_method("type_as", (product, v))


def _finish(graph: fx.Graph, result: fx.Node, name: str) -> fx.GraphModule:
    graph.output(result)
    return fx.GraphModule({}, graph, class_name=name)
