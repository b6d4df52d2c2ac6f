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
from naflow_fx.passes._kernels import Kernels
from naflow_fx.passes._reverse import added, item, walk_back
from naflow_fx.rules._shapes import as_activation

Lookup = Callable[[Any], Any]
Offer = Callable[[fx.Node], _graph.State]


class AffineMap:
    """A, A^T and c of the nodes from `entry` (excluded) to the last of `nodes`, as GraphModules.

    ``linear(v, *needs)``, ``transpose(w, *needs)``, ``offset(z, *needs)`` (z: any output), where
    `needs` are captures and constants of the outer graph; `offset` is None where c = 0.  `kernels`
    tells by index which of them are kept kernels.
    """

    def __init__(self, nodes: Sequence[fx.Node], entry: fx.Node, kernels: Kernels) -> None:
        self.nodes, self.entry, self.exit = list(nodes), entry, nodes[-1]
        offers, merged = kernels.offers(self.nodes)
        self.offer = offers.__getitem__
        self.merged = set(merged)
        self.needs = self._wanted()
        self.kernels = tuple(i for i, need in enumerate(self.needs) if need in kernels.made)
        self.linear = self._linear()
        self.transpose = self._transpose()
        self.offset = self._offset()

    def _wanted(self) -> list[fx.Node]:
        """All that the rules' functions ask for, each once."""
        found: dict[fx.Node, None] = {}
        for node in self.nodes:
            rule, offered = _graph.rule(node), self.offer(node)
            shift = rule.shift if _graph.has_shift(node) else None
            maps = () if node in self.merged else ((rule.linear, 1), (rule.transpose, 1))
            for function, skip in (*maps, (shift, 0)):
                if function is not None:
                    found |= dict.fromkeys(_graph.uses(_graph.asked(function, offered, skip)))
        return list(found)

    def _start(self, vector: str) -> tuple[fx.Graph, fx.Node, Lookup]:
        graph = fx.Graph()
        v = graph.placeholder(vector)
        places = {need: graph.placeholder(need.name) for need in self.needs}
        return graph, v, places.__getitem__

    def _linear(self) -> fx.GraphModule:
        graph, v, lookup = self._start("v")
        values = {self.entry: v}
        self._emit(graph, values, lookup, shifts=False)
        graph.output(values[self.exit])
        return _finish(graph, "Linear")

    def _offset(self) -> fx.GraphModule | None:
        graph, z, lookup = self._start("z")
        values: dict[fx.Node, Any] = {self.entry: None}
        if any(merges_batch(node) for node in self.nodes):  # then c's rows are not z's
            shape = self.entry.meta[keys.SHAPE]
            values[self.entry] = graph.call_function(as_activation, (0.0, z, shape))
        self._emit(graph, values, lookup, shifts=True, like=z)
        if values[self.exit] is None:
            return None
        graph.output(values[self.exit])
        return _finish(graph, "Offset")

    def _emit(
        self, graph: fx.Graph, values: dict[fx.Node, Any], lookup: Lookup, **how: Any
    ) -> None:
        emit_affine(graph, self.nodes, values, self.offer, lookup, merged=self.merged, **how)

    def _transpose(self) -> fx.GraphModule:
        graph, w, lookup = self._start("w")

        def back(node: fx.Node, w: fx.Node) -> list[tuple[fx.Node, fx.Node]]:
            if node is self.entry:
                return []
            rule, called = _graph.rule(node), w
            if node not in self.merged:
                called = emit(graph, rule.transpose, (w,), node, self.offer, lookup)
            return [(source, item(graph, called, i) if rule.variadic else called)
                    for i, source in enumerate(_graph.sources(node))]  # fmt: skip

        nodes = [self.entry, *self.nodes]
        totals = walk_back(nodes, {self.exit: w}, lambda _, parts: added(graph, parts), back)
        graph.output(totals[self.entry])
        return _finish(graph, "Transpose")


def emit_affine(
    graph: fx.Graph,
    nodes: Sequence[fx.Node],
    values: dict[fx.Node, Any],
    offer: Offer,
    lookup: Lookup,
    shifts: bool,
    suffix: str = "",
    like: fx.Node | None = None,
    merged: Container[fx.Node] = (),
) -> None:
    """Writes the captured affine forward of `nodes`; `values` holds the start and the results.

    None stands for zero, so that nothing is computed from it.  With `shifts`, c is added; where
    there is nothing to add it to, it is expanded to the whole activation if `like`, a tensor of the
    batch, is given (a merge needs it whole).  The scale of a `merged` node is in the weight
    of the layer before it.
    """
    for node in nodes:
        if node in values:
            continue
        rule = _graph.rule(node)
        inputs = [values.get(source) for source in _graph.sources(node)]
        value = None
        if node in merged:
            value = inputs[0]
        elif any(v is not None for v in inputs):
            leading = (inputs,) if rule.variadic else (inputs[0],)
            value = emit(graph, rule.linear, leading, node, offer, lookup, suffix)
        if shifts and _graph.has_shift(node):
            shift = emit(graph, rule.shift, (), node, offer, lookup, suffix)
            if value is None and like is not None:
                shape = node.meta[keys.SHAPE]
                shift = graph.call_function(as_activation, (shift, like, shape))
            if value is None:
                value = shift
            else:
                name = f"{node.name}_{suffix or 'linear'}_shifted"
                value = graph.create_node("call_function", operator.add, (value, shift), name=name)
        values[node] = value


def merges_batch(node: fx.Node) -> bool:
    """Whether a reshape puts other dimensions into the batch, or takes them out again."""
    before = _graph.state(node, {}).get("input_shape", ())
    after = node.meta[keys.SHAPE]
    return _graph.rule(node).regroups and math.prod(before[1:]) != math.prod(after[1:])


def emit(
    graph: fx.Graph,
    function: Any,
    leading: Sequence[Any],
    node: fx.Node,
    offer: Offer,
    lookup: Lookup,
    suffix: str = "",
) -> fx.Node:
    """Inserts a rule's function of `node`; `lookup` gives the values that it asks for."""
    mapped = map_arg(_graph.asked(function, offer(node), len(leading)), lookup)
    name = f"{node.name}_{suffix or function.__name__}"
    made = _graph.call(graph, function, leading, mapped, name)
    made.meta[keys.SOURCE] = node.name
    return made


def _finish(graph: fx.Graph, name: str) -> fx.GraphModule:
    return fx.GraphModule({}, graph, class_name=name)
