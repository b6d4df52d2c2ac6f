"""count_use: which neurons reach the feature node, and how many live outputs read each (Fig. 3)."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx
from torch.fx.node import map_aggregate

from naflow_fx import keys, use
from naflow_fx.passes import _graph
from naflow_fx.passes.find_flow import find_flow
from naflow_fx.rule import parameters


def count_use(gm: fx.GraphModule) -> fx.GraphModule:
    """Counts, from the feature nodes back, for each neuron the live neurons that read it.

    A neuron is live if it reaches a feature node through the captured masks, indices and gates
    and the supports of kernels: through entries of A that are not 0.  What no live neuron reads
    is abandoned, whatever the score.

    Before: a canonical graph with captures.  After: at every node of the cascade `keys.TIMES`
    names the node that holds the counts, float32; of a feature node all neurons are live, and
    read once by the head.  Left alone: control branches, which are captured whole.
    """
    new = _graph.copy(gm)
    flow = find_flow(new.graph)
    with new.graph.inserting_before(_graph.output_node(new.graph)):
        writer = _Counts(new.graph)
        for name in flow.features:
            node = writer.names[name]
            writer.add(node, writer.call(node, use.everywhere, (node,), "read_by_head"))
        for node in reversed([n for n in new.graph.nodes if n.name in flow.cascade]):
            writer.back(node)
    return _graph.rebuild(new, new.graph)


class _Counts:
    def __init__(self, graph: fx.Graph) -> None:
        self.graph = graph
        self.names = _graph.names(graph)
        self.parts: dict[fx.Node, list[fx.Node]] = {}
        self.patterns: dict[fx.Node, fx.Node] = {}

    def add(self, node: fx.Node, part: fx.Node) -> None:
        """One more reader's count of a node."""
        self.parts.setdefault(node, []).append(part)

    def back(self, node: fx.Node) -> None:
        """Adds up who reads `node`, and passes on which of its neurons are live."""
        times = self.call(node, use.count, tuple(self.parts[node]), "times")
        node.meta[keys.TIMES] = times.name
        rule, operands = _graph.rule_of(node), _graph.operands(node, invertible=True)
        if rule is None or not operands:
            return
        function = rule.support or rule.transpose
        known = _graph.state(node, self.names)
        state = {name: self._pattern(name, known[name], rule.operands)
                 for name in parameters(function)[1:] if name in known}  # fmt: skip
        live = self.call(node, use.live, (times,), "live")
        reads = _graph.call(self.graph, function, (live,), state, f"{node.name}_reads")
        _mark(reads, node)
        for i, operand in enumerate(operands):
            part = reads
            if rule.variadic:
                part = self.call(node, operator.getitem, (reads, i), f"reads_{i}")
            self.add(operand, part)

    def _pattern(self, name: str, value: Any, operands: tuple[str, ...]) -> Any:
        """What a rule's function is given: 1 in place of every number that isn't 0."""
        if name in operands and isinstance(value, (int, float)):
            return float(value != 0)
        return map_aggregate(value, lambda x: self._of(x) if isinstance(x, fx.Node) else x)

    def _of(self, node: fx.Node) -> fx.Node:
        if node not in self.patterns:
            self.patterns[node] = self.call(node, use.pattern, (node,), "pattern")
        return self.patterns[node]

    def call(self, node: fx.Node, function: Any, args: tuple[Any, ...], word: str) -> fx.Node:
        """Inserts a call that serves `node`."""
        name = f"{node.name}_{word}"
        made = self.graph.create_node("call_function", function, args, {}, name=name)
        _mark(made, node)
        return made


def _mark(node: fx.Node, source: fx.Node) -> None:
    node.meta |= {keys.PART: "use", keys.SOURCE: source.name}
