"""The captured affine map of a part of the graph, written out in the rules' functions.

With everything captured, a layer, a chain or a whole region is ``y = A x + c``.  Here A, A^T and
c become graphs of `linear`, `transpose` and `shift` calls.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Container, Sequence
from typing import Any

from torch import fx
from torch.fx.node import map_arg

from naflow_fx import keys
from naflow_fx.passes import _graph
from naflow_fx.passes._kernels import Kernels, has_constant_kernel
from naflow_fx.passes._reverse import added, item, walk_back
from naflow_fx.rules._shapes import as_activation
from naflow_fx.rules.contract import Function

Offer = Callable[[fx.Node], _graph.State]


class AffineMap:
    """A, A^T and c of the nodes from `entry` (excluded) to the last of `nodes`, as GraphModules.

    ``linear(v, *needs)``, ``transpose(w, *needs)``, ``shift(z, *needs)`` (z: any output), where
    `needs` are captures and constants of the outer graph; `shift` is None where c = 0.  `kernels`
    tells by index which of them are kept kernels.
    """

    def __init__(self, nodes: Sequence[fx.Node], entry: fx.Node, kernels: Kernels) -> None:
        self.nodes, self.entry, self.exit = list(nodes), entry, nodes[-1]
        self.offers, self.merged = kernels.offers(self.nodes)
        self.kept = set(filter(has_constant_kernel, self.nodes))
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

    def _start(self, vector: str) -> tuple[fx.Graph, fx.Node, Offer]:
        """A graph of `vector` and what is needed, and what a rule may ask for in it."""
        graph = fx.Graph()
        v = graph.placeholder(vector)
        places = {need: graph.placeholder(need.name) for need in self.needs}
        return graph, v, lambda node: map_arg(self.offers[node], lambda n: places.get(n, n))

    def _linear(self) -> fx.GraphModule:
        graph, v, offer = self._start("v")
        values = {self.entry: v}
        emit_affine(graph, self.nodes, values, offer, merged=self.merged, kept=self.kept)
        return _finish(graph, values[self.exit], "Linear")

    def _shift(self) -> fx.GraphModule | None:
        graph, z, offer = self._start("z")
        values: dict[fx.Node, Any] = {self.entry: None}
        if any(merges_batch(node) for node in self.nodes):  # then c's rows are not z's
            shape = self.entry.meta[keys.SHAPE]
            values[self.entry] = graph.call_function(as_activation, (0.0, z, shape))
        emit_affine(graph, self.nodes, values, offer, like=z, merged=self.merged, kept=self.kept)
        shift = values[self.exit]
        return None if shift is None else _finish(graph, shift, "Shift")

    def _transpose(self) -> fx.GraphModule:
        graph, w, offer = self._start("w")

        def back(node: fx.Node, w: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
            if node is self.entry:
                return []
            rule, called = _graph.rule(node), w
            if node not in self.merged:
                called = _multiplied(graph, node, rule.transpose, w, offer(node), node in self.kept)
            return [(source, item(graph, called, i) if rule.variadic else called)
                    for i, source in enumerate(_graph.sources(node))]  # fmt: skip

        nodes = [self.entry, *self.nodes]
        totals = walk_back(nodes, {self.exit: w}, lambda _, parts: added(graph, parts), back)
        return _finish(graph, totals[self.entry], "Transpose")


def emit_affine(
    graph: fx.Graph,
    nodes: Sequence[fx.Node],
    values: dict[fx.Node, Any],
    offer: Offer,
    like: fx.Node | None = None,
    merged: Container[fx.Node] = (),
    kept: Container[fx.Node] = (),
    word: str = "",
) -> None:
    """Writes the captured affine forward of `nodes`; `values` holds the start and the results.

    None stands for zero, so that nothing is computed from it.  With `like`, a tensor of the batch,
    c is added; where there is nothing to add it to, it is expanded to the whole activation (a merge
    needs it whole).  The scale of a `merged` node is in the weight of the layer before it.  The
    kernels of `kept` nodes may have a dtype of their own.  New nodes end in `word`, or in the names
    of the rules' functions.
    """
    for node in nodes:
        if node in values:
            continue
        rule, offered = _graph.rule(node), offer(node)
        inputs = [values.get(source) for source in _graph.sources(node)]
        value = None
        if node in merged:
            value = inputs[0]
        elif any(v is not None for v in inputs):
            v = inputs if rule.variadic else inputs[0]
            value = _multiplied(graph, node, rule.linear, v, offered, node in kept, word)
        if like is not None and _graph.has_shift(node):
            shift = _graph.emit(graph, node, rule.shift, (), offered, word)
            if value is None:
                shape = node.meta[keys.SHAPE]
                value = graph.call_function(as_activation, (shift, like, shape))
            else:
                name = f"{node.name}_{word or 'linear'}_shifted"
                value = graph.create_node("call_function", operator.add, (value, shift), name=name)
        values[node] = value


def _multiplied(
    graph: fx.Graph,
    node: fx.Node,
    function: Function,
    v: Any,
    offered: _graph.State,
    kept: bool,
    word: str = "",
) -> fx.Node:
    """``function(v, ...)``, A v or A^T v; in the dtype of a `kept` kernel, and back in v's."""
    if not kept:
        return _graph.emit(graph, node, function, (v,), offered, word)
    kernel = offered[_graph.rule(node).kernel]
    rounded = graph.call_method("type_as", (v, kernel))
    product = _graph.emit(graph, node, function, (rounded,), offered, word)
    return graph.call_method("type_as", (product, v))


def merges_batch(node: fx.Node) -> bool:
    """Whether a reshape puts other dimensions into the batch, or takes them out again."""
    before = _graph.state(node, {}).get("input_shape", ())
    after = node.meta[keys.SHAPE]
    return _graph.rule(node).regroups and math.prod(before[1:]) != math.prod(after[1:])


def _finish(graph: fx.Graph, result: fx.Node, name: str) -> fx.GraphModule:
    graph.output(result)
    return fx.GraphModule({}, graph, class_name=name)
