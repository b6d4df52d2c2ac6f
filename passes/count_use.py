"""count_use: which neurons reach the feature node, and how many live outputs read each (Fig. 3)."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from naflow_fx import keys
from naflow_fx.maps import use
from naflow_fx.options import Options
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._batch import merges_batch
from naflow_fx.passes._kernels import has_constant_kernel
from naflow_fx.passes._reverse import walk_back
from naflow_fx.passes._write import Writer
from naflow_fx.passes.find_flow import find_flow
from naflow_fx.rules.contract import Rule, parameters

Count = Tensor | fx.Node  # what constants alone tell, of one sample; or a node, of each sample


def count_use(gm: fx.GraphModule, options: Options) -> fx.GraphModule:
    """Counts, from the feature nodes back, for each neuron the live neurons that read it.

    A neuron is live if it reaches a feature node through the captured masks, indices and gates
    and the supports of kernels: through entries of A that are not 0.  What no live neuron reads
    is abandoned, whatever the score.

    Before: a canonical graph with captures.  After: at every node of the cascade that has abandoned
    neurons `keys.USED` names the node that holds 1 or 0 for each; where the user keeps them,
    `keys.TIMES` names the counts; float32.  Of a feature node all neurons are live, and read once
    by the head.  Where no mask or index lies between, constants alone tell what is used, and no
    node computes it.  Left alone: control branches, which are captured whole; the graph, where
    neither the inverse nor the user asks for it.
    """
    if not options.inverts and not {"used", "neuron_times"} & set(options.keep):
        return gm
    new = _module.copy(gm)
    flow = find_flow(new.graph)
    with new.graph.inserting_before(new.graph.output_node()):
        write = _Counts(new, "neuron_times" in options.keep)
        seeds = {node: write.ones(node) for node in flow.features}
        walk_back(new.graph.nodes, seeds, write.live, write.back)
    return new


class _Counts(Writer):
    def __init__(self, gm: fx.GraphModule, times: bool) -> None:
        super().__init__(gm.graph, "use")
        self.gm, self.times = gm, times
        tensors = (*gm.parameters(), *gm.buffers())
        self.device = next((x.device for x in tensors), torch.device("cpu"))
        self.merged = any(merges_batch(n) for n in gm.graph.nodes if _graph.rule_of(n))
        self.patterns: dict[fx.Node, fx.Node] = {}

    def ones(self, node: fx.Node) -> Count:
        """All neurons of a node; told by a node where the batch holds more than samples."""
        if self.merged:
            return self.call(node, use.everywhere, (node,), "all")
        return use.ones(node.meta[keys.SHAPE], self.device)

    def live(self, node: fx.Node, parts: list[Count]) -> Count:
        """Which neurons of `node` are live, from who reads them."""
        if self.times:
            times = self._apply(node, use.count, parts, {}, "times")
            node.meta[keys.TIMES] = self._node(node, times).name
        whole = next((part for part in parts if _is_everywhere(part)), None)
        live = self._apply(node, use.live, parts if whole is None else [whole], {}, "used")
        if not _is_everywhere(live):
            node.meta[keys.USED] = self._node(node, live).name
        return live  # type: ignore[no-any-return]

    def back(self, node: fx.Node, live: Count) -> list[tuple[fx.Node, Count]]:
        """How often the live neurons of `node` read each of its sources'."""
        sources = _graph.sources(node)
        if not sources:
            return []
        rule = _graph.rule(node)
        reads = self._reads(node, rule, live)
        return [(source, self._item(node, reads, i) if rule.variadic else reads)
                for i, source in enumerate(sources)]  # fmt: skip

    def _reads(self, node: fx.Node, rule: Rule, live: Count) -> Any:
        function = rule.support or rule.transpose
        full = "full" in parameters(function) and self._is_full(node, rule)
        state = self.offer(node) | {"full": full}
        if full:  # only its shape is asked for
            self.patterns[state[rule.kernel]] = state[rule.kernel]
        wanted = _graph.asked(function, state, 1)
        for name in rule.operands:  # a factor that is a number
            if isinstance(wanted.get(name), (int, float)):
                wanted[name] = float(wanted[name] != 0)
        reads = self._apply(node, function, [live], wanted, "reads")
        inexact = bool(rule.kernel) and rule.support is None
        return self._apply(node, torch.round, [reads], {}, "rounded") if inexact else reads

    def _item(self, node: fx.Node, reads: Any, index: int) -> Count:
        known = isinstance(reads, tuple)
        return reads[index] if known else self.call(node, operator.getitem, (reads, index), "part")

    def _is_full(self, node: fx.Node, rule: Rule) -> bool:
        """Whether a node's kernel is a constant without a 0."""
        if not rule.kernel or not has_constant_kernel(node):
            return False
        return bool(_graph.resolve(node.kwargs[rule.kernel], self.gm).all())

    def _apply(
        self, node: fx.Node, function: Any, leading: list[Any], state: _graph.State, word: str
    ) -> Any:
        """A function's result where constants tell it, else the node of its call.

        It is given patterns: 1 in place of every number that isn't 0.
        """
        known = _graph.resolve((leading, state), self.gm)
        if known is not None:
            return function(*leading, **pytree.tree_map_only(Tensor, use.pattern, known[1]))
        given = [self._node(node, x) if isinstance(x, Tensor) else x for x in leading]
        patterns = map_aggregate(state, lambda x: self._of(x) if isinstance(x, fx.Node) else x)
        return self.call(node, function, tuple(given), word, patterns)

    def _of(self, node: fx.Node) -> fx.Node:
        if node not in self.patterns:
            self.patterns[node] = self.call(node, use.pattern, (node,), "pattern")
        return self.patterns[node]

    def _node(self, node: fx.Node, count: Count) -> fx.Node:
        """A count of `node` as a node, of each sample."""
        if isinstance(count, fx.Node):
            return count
        if count.min() == count.max() == 1:
            return self.call(node, use.everywhere, (node,), "all")
        name = f"folded_{node.name}_count_{len(self.gm._buffers)}"
        self.gm.register_buffer(name, count.contiguous())
        constant = self.graph.create_node("get_attr", name, name=name)
        return self.call(node, use.of_batch, (constant, node), "of_batch")


def _is_everywhere(count: Count) -> bool:
    """Whether constants tell that all neurons are read."""
    return isinstance(count, Tensor) and bool((count > 0).all())
